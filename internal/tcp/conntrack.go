// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netlinksafe"
)

// DeleteConntrack removes the connection tracking entries of these connections,
// in either direction, from the calling thread's network namespace and returns
// how many there were. An entry from before a restore has other sequence numbers,
// by which the packets of the restored connection may be declared invalid.
// Entries with address translation are left alone: they may be what leads the
// connection here. It is no error if there are no entries, or if the kernel has
// no connection tracking.
func DeleteConntrack(conns []Tuple) (int, error) {
	f := make(staleFlows, 2*len(conns))
	for _, c := range conns {
		f[c] = struct{}{}
		f[c.Reverse()] = struct{}{}
	}
	total := 0
	err := tracked("delete", func(family netlink.InetFamily) error {
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f)
		total += int(n) // a count
		return err
	})
	return total, err
}

// tracked calls do for both families of connection tracking entries, unless there are
// none: to list them the kernel goes through those of all namespaces, some 10 ms for which
// it leaves the processor to nobody else. It is no error if a table does not stop changing,
// or if the kernel has no connection tracking.
func tracked(what string, do func(netlink.InetFamily) error) error {
	if n, err := conntrackCount(); err == nil && n == 0 {
		return nil
	}
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		switch err := do(family); {
		case err == nil, errors.Is(err, netlink.ErrDumpInterrupted):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL):
			return nil // not in this kernel
		default:
			return fmt.Errorf("%s connection tracking entries: %w", what, err)
		}
	}
	return nil
}

// conntrackCount returns how many entries there are in the calling thread's network
// namespace (nf_conntrack-sysctl in the kernel's documentation).
func conntrackCount() (int, error) {
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// staleFlows are the connections whose entries are to be deleted.
type staleFlows Set

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return flow.Forward.Protocol == unix.IPPROTO_TCP && !translated(flow) && Set(f).Has(wayOf(flow.Forward))
}

// translated reports whether the two ways of a flow differ in their addresses or ports.
func translated(flow *netlink.ConntrackFlow) bool {
	return wayOf(flow.Forward) != wayOf(flow.Reverse).Reverse()
}

// wayOf returns where a packet of one of a flow's two ways comes from, and goes to.
func wayOf(t netlink.IPTuple) Tuple {
	return NewTuple(flowEnd(t.SrcIP, t.SrcPort), flowEnd(t.DstIP, t.DstPort))
}

// Translated returns those of the connections whose addresses or ports are translated in
// the calling thread's network namespace itself, so that their packets are others outside.
func Translated(conns []Tuple) ([]Tuple, error) {
	if len(conns) == 0 {
		return nil, nil
	}
	want, found := SetOf(conns), Set{}
	err := tracked("list", func(family netlink.InetFamily) error {
		flows, err := netlinksafe.Retry(func() ([]*netlink.ConntrackFlow, error) {
			return netlink.ConntrackTableList(netlink.ConntrackTable, family)
		})
		for _, flow := range flows {
			if flow.Forward.Protocol != unix.IPPROTO_TCP || !translated(flow) {
				continue
			}
			// What our own sockets send is translated on its way out: it is one of the two
			// ways as it began.
			for _, t := range []Tuple{wayOf(flow.Forward), wayOf(flow.Reverse)} {
				if want.Has(t) {
					found[t] = struct{}{}
				}
			}
		}
		return err
	})
	return slices.Collect(maps.Keys(found)), err
}

func flowEnd(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a, port)
}
