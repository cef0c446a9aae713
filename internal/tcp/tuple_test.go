// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"net/netip"
	"slices"
	"testing"
)

// conns returns one connection per port of ours.
func conns(ports ...uint16) (all []Tuple) {
	addr := netip.MustParseAddr("192.0.2.1")
	for _, p := range ports {
		all = append(all, NewTuple(netip.AddrPortFrom(addr, p), netip.AddrPortFrom(addr, 443)))
	}
	return all
}

func TestNewTuple(t *testing.T) {
	for _, tc := range []struct{ local, remote, want string }{
		{"192.0.2.1:443", "192.0.2.2:1", "192.0.2.1:443->192.0.2.2:1"},
		{"[::ffff:192.0.2.1]:443", "[::ffff:192.0.2.2]:1", "192.0.2.1:443->192.0.2.2:1"},
		{"[2001:db8::1]:443", "[fe80::1%eth0]:1", "[2001:db8::1]:443->[fe80::1%eth0]:1"},
	} {
		got := NewTuple(netip.MustParseAddrPort(tc.local), netip.MustParseAddrPort(tc.remote))
		if got.String() != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
		if back := got.Reverse(); back.Local != got.Remote || back.Remote != got.Local {
			t.Errorf("%s reversed is %s", got, back)
		}
	}
	if none := NewTuple(netip.AddrPort{}, netip.AddrPort{}); none != (Tuple{}) {
		t.Errorf("of no addresses: %s", none)
	}
}

func TestOverlaps(t *testing.T) {
	for _, tc := range []struct {
		a, b []Tuple
		want bool
	}{
		{nil, nil, false},
		{conns(1), nil, false},
		{conns(1, 2), conns(3, 4), false},
		{conns(1, 2), conns(4, 2), true},
		{conns(1), []Tuple{conns(1)[0].Reverse()}, false}, // the peer's own view
	} {
		if SetOf(tc.a).Overlaps(tc.b) != tc.want || SetOf(tc.b).Overlaps(tc.a) != tc.want {
			t.Errorf("%v and %v: want %v", tc.a, tc.b, tc.want)
		}
	}
	if (Set)(nil).Overlaps(conns(1)) {
		t.Error("a nil set has a connection")
	}
	if s := SetOf(conns(1, 2), conns(2, 3)); len(s) != 3 || !s.Has(conns(3)[0]) || s.Has(conns(4)[0]) {
		t.Errorf("the union is %v", s)
	}
}

func TestWithout(t *testing.T) {
	for _, tc := range []struct{ a, b, want []Tuple }{
		{nil, nil, nil},
		{nil, conns(1), nil},
		{conns(1), nil, conns(1)},
		{conns(2), conns(1, 2), nil},
		{conns(1, 3), conns(1, 2), conns(3)},
	} {
		before := slices.Clone(tc.a)
		if got := Without(tc.a, tc.b); !slices.Equal(got, tc.want) || !slices.Equal(tc.a, before) {
			t.Errorf("%v without %v: %v", tc.a, tc.b, got)
		}
	}
}
