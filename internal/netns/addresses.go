// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netlinksafe"
)

// Addresses returns the addresses of the namespace's interfaces. If they do not stop
// changing, it returns those that it has seen and an error that wraps
// netlink.ErrDumpInterrupted: there may be more.
func (n *Namespace) Addresses() (map[netip.Addr]bool, error) {
	found := map[netip.Addr]bool{}
	err := n.Do(func() error {
		addrs, err := netlinksafe.AddrList(nil, netlink.FAMILY_ALL)
		for _, a := range addrs {
			if a.IPNet == nil {
				continue
			}
			if ip, ok := netip.AddrFromSlice(a.IP); ok {
				found[ip.Unmap()] = true
			}
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("list the addresses of %s: %w", n, err)
	}
	return found, err
}

// Foreign returns those of the addresses that belong to somebody else: none of the
// namespace's interfaces has them, and packets to them are not delivered within the
// namespace (as they are to all of 127.0.0.0/8, or by a route of type local).
func (n *Namespace) Foreign(addrs []netip.Addr) ([]netip.Addr, error) {
	own, err := n.Addresses()
	if err != nil {
		return nil, err
	}
	var foreign []netip.Addr
	err = n.Do(func() error {
		for _, a := range addrs {
			if own[a.Unmap()] {
				continue
			}
			routes, err := netlink.RouteGet(a.Unmap().AsSlice())
			switch {
			case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
			case err != nil:
				return fmt.Errorf("ask %s for the route to %s: %w", n, a, err)
			case len(routes) == 0 || routes[0].Type == unix.RTN_LOCAL:
				continue
			}
			foreign = append(foreign, a)
		}
		return nil
	})
	return foreign, err
}
