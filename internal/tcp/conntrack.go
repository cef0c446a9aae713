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
	// To list the entries the kernel goes through those of all namespaces, some 10 ms for
	// which it leaves the processor to nobody else.
	if n, err := conntrackCount(); err == nil && n == 0 {
		return 0, nil
	}
	f := make(staleFlows, 2*len(conns))
	for _, c := range conns {
		f[c] = struct{}{}
		f[c.Reverse()] = struct{}{}
	}
	total := 0
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f)
		total += int(n) // a count
		switch {
		case err == nil, errors.Is(err, netlink.ErrDumpInterrupted):
		case notInKernel(err):
			return total, nil // not in this kernel
		default:
			return total, fmt.Errorf("delete connection tracking entries: %w", err)
		}
	}
	return total, nil
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
	if n, err := conntrackCount(); err == nil && n == 0 || len(conns) == 0 {
		return nil, nil
	}
	want, found := SetOf(conns), Set{}
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		flows, err := netlinksafe.Retry(func() ([]*netlink.ConntrackFlow, error) {
			return netlink.ConntrackTableList(netlink.ConntrackTable, family)
		})
		switch {
		case err == nil, errors.Is(err, netlink.ErrDumpInterrupted):
		case notInKernel(err):
			return nil, nil
		default:
			return nil, fmt.Errorf("list connection tracking entries: %w", err)
		}
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
	}
	return slices.Collect(maps.Keys(found)), nil
}

// notInKernel reports whether err, of a request about connection tracking, says that the
// kernel has none.
func notInKernel(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL)
}

func flowEnd(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a, port)
}
