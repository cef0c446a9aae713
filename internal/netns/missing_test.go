// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestTentative tells an address that may still come from one that is missing. The
// kernel's table can change while it is read: then an address that was not seen may
// be there all the same.
func TestTentative(t *testing.T) {
	a := netip.MustParseAddr("2001:db8::1")
	addr := func(ip string, flags int) netlink.Addr {
		return netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(ip)}, Flags: flags}
	}
	broken := errors.New("no netlink")
	for _, tc := range []struct {
		name  string
		addrs []netlink.Addr
		err   error
		want  bool
		fails error
	}{
		{"tested", []netlink.Addr{addr("2001:db8::2", 0), addr("2001:db8::1", unix.IFA_F_TENTATIVE)}, nil, true, nil},
		{"there", []netlink.Addr{addr("2001:db8::1", 0)}, nil, false, nil},
		{"refused by a neighbour", []netlink.Addr{addr("2001:db8::1", unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED)}, nil, false, nil},
		{"missing", []netlink.Addr{addr("2001:db8::2", unix.IFA_F_TENTATIVE)}, nil, false, nil},
		{"not seen in a table that changed", nil, netlink.ErrDumpInterrupted, true, nil},
		{"seen in a table that changed", []netlink.Addr{addr("2001:db8::1", 0)}, netlink.ErrDumpInterrupted, false, nil},
		{"cannot be read", nil, broken, false, broken},
	} {
		got, err := tentativeAmong(tc.addrs, tc.err, a)
		if got != tc.want || !errors.Is(err, tc.fails) {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
}

// TestMissingEverywhere: where no interface was ever up no address is there, although
// the kernel binds sockets to all of IPv4.
func TestMissingEverywhere(t *testing.T) {
	ns, err := OpenSelf()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::1")}
	if got, err := ns.Missing(want); err != nil || len(got) != len(want) {
		t.Errorf("missing: %v, %v", got, err)
	}
}
