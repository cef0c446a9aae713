package rules

import (
	"fmt"
	"net/netip"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// union returns the connections of both lists, each one once, in the form in
// which a packet filter sees them. A connection that is none is an error.
func union(before, more []tcp.Tuple) ([]tcp.Tuple, error) {
	all := make([]tcp.Tuple, 0, len(before)+len(more))
	seen := make(map[tcp.Tuple]bool, cap(all))
	for _, list := range [][]tcp.Tuple{before, more} {
		for _, t := range list {
			t = tcp.Tuple{Local: plain(t.Local), Remote: plain(t.Remote)}
			if !t.Local.IsValid() || !t.Remote.IsValid() || t.Local.Addr().Is4() != t.Remote.Addr().Is4() {
				return nil, fmt.Errorf("cannot freeze %s: not a pair of addresses of one family", t)
			}
			if !seen[t] {
				seen[t] = true
				all = append(all, t)
			}
		}
	}
	return all, nil
}

// plain takes from an address what packets do not carry: its zone and its
// IPv4-in-IPv6 form.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
