// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

func testConn(port uint16) tcp.Tuple {
	addr := netip.MustParseAddr("192.0.2.1")
	return tcp.NewTuple(netip.AddrPortFrom(addr, port), netip.AddrPortFrom(addr, 443))
}

func TestMissedBytes(t *testing.T) {
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
		err := checkMissedBytes(dumped, tc.now)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "NF402")) {
			t.Errorf("%v: %v, want %q", tc.now, err, tc.want)
		}
	}
}
