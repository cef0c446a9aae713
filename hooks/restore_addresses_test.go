// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"net/netip"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// TestMissingAddresses asks the kernel.
func TestMissingAddresses(t *testing.T) {
	ns := nstest.New(t)
	nstest.Run(t, ns, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	nstest.Run(t, ns, "ip", "addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
	conn := func(local string) tcp.Tuple {
		return tcp.NewTuple(netip.MustParseAddrPort(local), netip.MustParseAddrPort("192.0.2.9:1"))
	}
	got, err := missingAddresses(ns, []tcp.Tuple{
		conn("192.0.2.1:1"), conn("192.0.2.2:1"), conn("192.0.2.2:2"), conn("[2001:db8::1]:1"), conn("[2001:db8::2]:1"), conn("[fe80::1%lo]:1"), conn("[::ffff:192.0.2.1]:3"),
	})
	must(t, err)
	if netns.List(got) != "192.0.2.2, 2001:db8::2" {
		t.Errorf("missing: %s", netns.List(got))
	}
}
