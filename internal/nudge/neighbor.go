package nudge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// Prime has the kernel find out the next hops' MAC addresses towards the peers,
// so that the first packet after the thaw does not wait for that.
func (l *Line) Prime(ns *netns.Namespace, peers []netip.Addr) error {
	return ns.Do(func() error {
		asked := map[netip.Addr]bool{}
		var errs []error
		for _, p := range peers {
			routes, err := netlink.RouteGet(p.AsSlice())
			if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_UNICAST {
				errs = append(errs, err)
				continue
			}
			hop := p
			if gw, ok := netip.AddrFromSlice(routes[0].Gw); ok {
				hop = gw.Unmap()
			}
			if asked[hop] {
				continue
			}
			asked[hop] = true
			if err := l.ask(routes[0], hop); err != nil {
				errs = append(errs, fmt.Errorf("ask for the MAC address of %s: %w", hop, err))
			}
		}
		return errors.Join(errs...)
	})
}

// ask makes a neighbour entry and has the question sent, as if a packet were
// waiting (NTF_USE, neigh_add in net/core/neighbour.c). For IPv6 the kernel
// asks from its link-local address then, and not at all while that one is still
// tentative, as in a namespace just made; so the question comes from us.
func (l *Line) ask(route netlink.Route, hop netip.Addr) error {
	err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: route.LinkIndex, IP: hop.AsSlice(), Flags: netlink.NTF_USE, State: netlink.NUD_NONE,
	})
	if err != nil || hop.Is4() {
		return err
	}
	out, err := netlink.LinkByIndex(route.LinkIndex)
	if err != nil {
		return err
	}
	from, ok := netip.AddrFromSlice(route.Src)
	if mac := out.Attrs().HardwareAddr; ok && len(mac) == 6 && out.Attrs().Flags&net.FlagLoopback == 0 {
		f := frame{route.LinkIndex, solicitation(mac, from, hop)}
		l.asked = append(l.asked, f)
		return l.sendFrame(f)
	}
	return nil
}
