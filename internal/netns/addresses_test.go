// SPDX-License-Identifier: Apache-2.0

package netns_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// TestForeign tells a namespace's own addresses from those of others.
func TestForeign(t *testing.T) {
	a, _ := nstest.Pair(t)
	nstest.Run(t, a, "ip", "route", "add", "local", "203.0.113.0/24", "dev", "lo")
	own, err := a.Addresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{nstest.A4, nstest.A6, "127.0.0.1", "::1"} {
		if !own[netip.MustParseAddr(addr)] {
			t.Errorf("%s is not there: %v", addr, own)
		}
	}
	var addrs []netip.Addr
	for _, s := range []string{
		nstest.A4, nstest.A6, "::ffff:" + nstest.A4, "127.0.0.1", "127.1.2.3", "::1", "203.0.113.9", // own
		nstest.B4, nstest.B6, "198.51.100.1", // B's, and one that no route leads to
	} {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	foreign, err := a.Foreign(addrs)
	if err != nil || !slices.Equal(foreign, addrs[7:]) {
		t.Errorf("foreign are %v, want %v: %v", foreign, addrs[7:], err)
	}
}
