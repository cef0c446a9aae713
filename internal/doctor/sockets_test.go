// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestRefused knows the kinds that this kernel may not have, too.
func TestRefused(t *testing.T) {
	for _, test := range []struct {
		kind kind
		want string
	}{
		{kind{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP}, ""},
		{kind{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, ""},
		{kind{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP}, ""},
		{kind{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_SCTP}, ""},
		{kind{unix.AF_UNIX, unix.SOCK_SEQPACKET, 0}, ""},
		{kind{unix.AF_PACKET, unix.SOCK_RAW, 0}, ""},
		{kind{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT}, ""},
		{kind{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, "SCTP"},
		{kind{unix.AF_INET6, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP}, "SCTP"},
		{kind{unix.AF_INET, unix.SOCK_DCCP, unix.IPPROTO_DCCP}, "DCCP"},
		{kind{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, "MPTCP"},
		{kind{unix.AF_INET, unix.SOCK_STREAM, 256}, "protocol 256"},
		{kind{unix.AF_BLUETOOTH, unix.SOCK_SEQPACKET, 0}, "Bluetooth"},
		{kind{unix.AF_SMC, unix.SOCK_STREAM, 0}, "SMC"},
		{kind{99, unix.SOCK_STREAM, 0}, "address family 99"},
	} {
		if got := test.kind.refused(); got != test.want {
			t.Errorf("%v: %q, want %q", test.kind, got, test.want)
		}
	}
}

// TestUnixName cuts what follows a path, and writes an abstract name with an @.
func TestUnixName(t *testing.T) {
	for name, want := range map[string]string{"/run/s\x00\x00\x08": "/run/s", "/run/s": "/run/s", "\x00abstract": "@abstract", "": ""} {
		if got := unixName(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
