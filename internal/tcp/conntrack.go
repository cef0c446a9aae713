// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL):
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
	there, back := flow.Forward, flow.Reverse
	translated := !there.SrcIP.Equal(back.DstIP) || !there.DstIP.Equal(back.SrcIP) ||
		there.SrcPort != back.DstPort || there.DstPort != back.SrcPort
	return there.Protocol == unix.IPPROTO_TCP && !translated &&
		Set(f).Has(NewTuple(flowEnd(there.SrcIP, there.SrcPort), flowEnd(there.DstIP, there.DstPort)))
}

func flowEnd(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a, port)
}
