// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"net"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func flow(src, dst, backSrc, backDst string) *netlink.ConntrackFlow {
	tuple := func(src, dst string) netlink.IPTuple {
		s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
		return netlink.IPTuple{
			Protocol: unix.IPPROTO_TCP, SrcIP: net.IP(s.Addr().AsSlice()), SrcPort: s.Port(),
			DstIP: net.IP(d.Addr().AsSlice()), DstPort: d.Port(),
		}
	}
	return &netlink.ConntrackFlow{Forward: tuple(src, dst), Reverse: tuple(backSrc, backDst)}
}

func TestStaleFlows(t *testing.T) {
	const us, peer, vip = "192.0.2.1:443", "192.0.2.2:40000", "198.51.100.1:443"
	f := staleFlows{{Local: netip.MustParseAddrPort(us), Remote: netip.MustParseAddrPort(peer)}: {}}
	udp := flow(us, peer, peer, us)
	udp.Forward.Protocol = unix.IPPROTO_UDP
	for name, tc := range map[string]struct {
		flow *netlink.ConntrackFlow
		want bool
	}{
		"exactly ours":        {flow(us, peer, peer, us), true},
		"another port":        {flow(us, "192.0.2.2:40001", "192.0.2.2:40001", us), false},
		"destination changed": {flow(us, peer, vip, us), false},
		"source changed":      {flow(us, peer, peer, vip), false},
		"UDP":                 {udp, false},
	} {
		if got := f.MatchConntrackFlow(tc.flow); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestDeleteConntrack has the kernel track a connection and forget it.
func TestDeleteConntrack(t *testing.T) {
	inNetNS(t, func() {
		if _, err := DeleteConntrack(nil); err != nil {
			t.Errorf("with nothing there: %v", err)
		}
		out, err := exec.Command("nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c ct state established accept").CombinedOutput()
		if err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
		k, other := startTask(t), startTask(t)
		count := func() int {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
			if err != nil {
				t.Fatal(err)
			}
			return len(flows)
		}
		before := count()
		if n, err := conntrackCount(); n != before || err != nil {
			t.Errorf("%d entries are counted, %d are listed: %v", n, before, err)
		}
		n, err := DeleteConntrack([]Tuple{k.tuple})
		if err != nil || n != 1 || count() != before-1 {
			t.Errorf("forgot %d of %d, %d are left: %v", n, before, count(), err)
		}
		if n, err := DeleteConntrack([]Tuple{k.tuple}); n != 0 || err != nil {
			t.Errorf("the second time: %d, %v", n, err)
		}
		if n, err := DeleteConntrack([]Tuple{other.tuple.Reverse()}); n != 1 || err != nil {
			t.Errorf("from the other side: %d, %v", n, err)
		}
	})
}
