// SPDX-License-Identifier: Apache-2.0

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

// ProbeNeighbors makes the kernel of ns resolve the MAC addresses of the next hops
// towards the peers, so that the first packet after the thaw does not wait for
// that. A failure with one peer does not stop the others from being looked up.
func (s *Sender) ProbeNeighbors(ns *netns.Namespace, peers []netip.Addr) error {
	return ns.Do(func() error {
		probed := map[netip.Addr]bool{}
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
			if probed[hop] {
				continue
			}
			probed[hop] = true
			if err := s.probe(routes[0], hop); err != nil {
				errs = append(errs, fmt.Errorf("ask for the MAC address of %s: %w", hop, err))
			}
		}
		return errors.Join(errs...)
	})
}

// probe adds a neighbor entry and makes the kernel resolve it, as if a packet were
// waiting (NTF_USE, neigh_add in net/core/neighbour.c). For IPv6 the kernel would
// ask from its link-local address, and not at all while that is tentative, as in
// a new namespace, so we send the solicitation ourselves.
func (s *Sender) probe(route netlink.Route, hop netip.Addr) error {
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
		s.solicitations = append(s.solicitations, f)
		return s.sendFrame(f)
	}
	return nil
}
