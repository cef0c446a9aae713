package tcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Forget removes what the connection tracking of the calling thread's network
// namespace remembers of these connections, in either direction, and returns
// how many entries that were. An entry of a former life of a connection has
// other sequence numbers, and may have the packets of the restored one declared
// invalid. Entries with address translation are left alone: they may be what
// leads the connection here. Nothing there, or no connection tracking at all,
// is fine.
func Forget(conns []Tuple) (int, error) {
	f := staleFlows{}
	for _, c := range conns {
		f[c] = true
		f[Tuple{Local: c.Remote, Remote: c.Local}] = true
	}
	total := 0
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f)
		total += int(n) //nolint:gosec // a count
		switch {
		case err == nil, errors.Is(err, netlink.ErrDumpInterrupted):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL):
			return total, nil // not in this kernel
		default:
			return total, fmt.Errorf("remove entries of connection tracking: %w", err)
		}
	}
	return total, nil
}

// staleFlows are the connections whose entries are to go.
type staleFlows map[Tuple]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	there, back := flow.Forward, flow.Reverse
	translated := !there.SrcIP.Equal(back.DstIP) || !there.DstIP.Equal(back.SrcIP) ||
		there.SrcPort != back.DstPort || there.DstPort != back.SrcPort
	return there.Protocol == unix.IPPROTO_TCP && !translated &&
		f[Tuple{Local: flowEnd(there.SrcIP, there.SrcPort), Remote: flowEnd(there.DstIP, there.DstPort)}]
}

func flowEnd(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}
