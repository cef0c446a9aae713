package hooks

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

func testConn(port uint16) tcp.Tuple {
	addr := netip.MustParseAddr("192.0.2.1")
	return tcp.Tuple{Local: netip.AddrPortFrom(addr, port), Remote: netip.AddrPortFrom(addr, 443)}
}

func TestWithout(t *testing.T) {
	conns := func(ports ...uint16) (all []tcp.Tuple) {
		for _, p := range ports {
			all = append(all, testConn(p))
		}
		return all
	}
	for _, tc := range []struct{ a, b, want []tcp.Tuple }{
		{nil, nil, nil},
		{nil, conns(1), nil},
		{conns(1), nil, conns(1)},
		{conns(2), conns(1, 2), nil},
		{conns(1, 3), conns(1, 2), conns(3)},
	} {
		before := slices.Clone(tc.a)
		if got := without(tc.a, tc.b); !slices.Equal(got, tc.want) || !slices.Equal(tc.a, before) {
			t.Errorf("%v without %v: %v", tc.a, tc.b, got)
		}
	}
}

func TestSlipped(t *testing.T) {
	stream := func(port uint16, next uint32) tcp.Stream {
		return tcp.Stream{Tuple: testConn(port), RcvNxt: next}
	}
	dumped := []tcp.Stream{stream(1, 100), stream(2, 0xfffffffe)}
	for _, tc := range []struct {
		now  map[tcp.Tuple]uint32
		want string
	}{
		{nil, ""},
		{map[tcp.Tuple]uint32{testConn(1): 100, testConn(2): 0xfffffffe, testConn(3): 5}, ""},
		{map[tcp.Tuple]uint32{testConn(1): 107}, "7 bytes, or an end, came in"},
		{map[tcp.Tuple]uint32{testConn(2): 2}, "4 bytes, or an end, came in"}, // modulo 2^32
	} {
		err := slipped(dumped, tc.now)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%v: %v, want %q", tc.now, err, tc.want)
		}
	}
}
