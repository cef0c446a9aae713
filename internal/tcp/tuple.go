// SPDX-License-Identifier: Apache-2.0

// Package tcp looks at and changes TCP sockets of other processes: it lists
// a network namespace's connections, switches TCP_REPAIR on duplicates of a
// stopped task's sockets, and removes sockets that no process owns any more.
package tcp

import (
	"fmt"
	"net/netip"
	"slices"
)

// Tuple names one TCP connection as its owner sees it. Addresses are never
// IPv4-mapped IPv6: a connection that runs over IPv4 has IPv4 addresses here
// even if its socket is an IPv6 one, since that is what a packet filter sees.
// [NewTuple] sees to that.
type Tuple struct {
	Local, Remote netip.AddrPort
}

// NewTuple returns the connection between two ends, with IPv4 addresses where
// they are given in the IPv4-mapped form of an IPv6 socket (RFC 4291, section
// 2.5.5.2).
func NewTuple(local, remote netip.AddrPort) Tuple {
	return Tuple{Local: unmap(local), Remote: unmap(remote)}
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// String returns "local->remote".
func (t Tuple) String() string { return fmt.Sprintf("%s->%s", t.Local, t.Remote) }

// Is4 reports whether the connection runs over IPv4.
func (t Tuple) Is4() bool { return t.Local.Addr().Is4() }

// Reverse returns the same connection as the peer sees it.
func (t Tuple) Reverse() Tuple { return Tuple{Local: t.Remote, Remote: t.Local} }

// Set is a set of connections. A nil Set is empty and may be asked.
type Set map[Tuple]struct{}

// SetOf returns the set of all connections in the lists.
func SetOf(tuples ...[]Tuple) Set {
	n := 0
	for _, list := range tuples {
		n += len(list)
	}
	s := make(Set, n)
	for _, list := range tuples {
		for _, t := range list {
			s[t] = struct{}{}
		}
	}
	return s
}

// Has reports whether t is in the set.
func (s Set) Has(t Tuple) bool {
	_, ok := s[t]
	return ok
}

// Overlaps reports whether any of the connections is in the set.
func (s Set) Overlaps(tuples []Tuple) bool { return slices.ContainsFunc(tuples, s.Has) }

// Outside returns the connections whose other end is outside the namespace that all of
// them are in, as far as can be told from their addresses, in their order.
func Outside(conns []Tuple) []Tuple {
	ours := map[netip.Addr]bool{}
	for _, t := range conns {
		ours[t.Local.Addr()] = true
	}
	return slices.DeleteFunc(slices.Clone(conns), func(t Tuple) bool {
		peer := t.Remote.Addr()
		return peer.IsLoopback() || ours[peer]
	})
}

// Without returns those connections of a that are not in b, in their order. It
// changes neither.
func Without(a, b []Tuple) []Tuple {
	return slices.DeleteFunc(slices.Clone(a), SetOf(b).Has)
}
