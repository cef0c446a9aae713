// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
)

// soon is the time within which traffic flows after a thaw with a nudge, however
// long the outage was. A nudge takes one round trip, here on a machine that runs
// other tests too; a peer left to its timer may take as long again as the outage.
const soon = 150 * time.Millisecond

// TestNudge restores a server that only reads, while its peer pushes without
// pause: the first byte has to come from the peer. With the nudge it comes at
// once, even if CRIU (here started by runc) removes its own network lock only
// after our thaw.
func TestNudge(t *testing.T) {
	const runs = 3
	for _, test := range []struct {
		resume string
		engine engine
		lock   string
	}{
		{"nudge", plainCRIU{}, "skip"},
		{"nudge", runtimeEngine("runc"), "criu"},
		{"nudge", runtimeEngine("runc"), "nftables"},
		{"none", plainCRIU{}, "skip"},
	} {
		t.Run(fmt.Sprintf("%s,%s,%s", test.resume, test.engine, test.lock), func(t *testing.T) {
			withNetfreeze(t, settings{
				policy: "kill", more: fmt.Sprintf("resume = %q", test.resume), install: []string{"--network-lock", test.lock},
			}, test.engine)
			var took []time.Duration
			for range runs {
				p := newPair(t, test.engine, true, []string{"pull=2,interval=5ms"})
				p.dumpAndMove(freeze(t))
				// Between two attempts of the peers, 1.4 and 3 s after the freeze.
				time.Sleep(2*time.Second - time.Since(p.from))
				if err := p.dumped.engine.restore(p.dumped); err != nil {
					t.Fatalf("restore: %v", err)
				}
				restored := time.Now()
				p.awaitTraffic(patience, restored)
				took = append(took, time.Since(restored))
				p.checkAllBytes()
				if err := p.packets.since(p.from).stray(); err != nil {
					t.Error(err)
				}
			}
			slices.Sort(took)
			t.Logf("every connection carried traffic after %v", took)
			if median := took[runs/2]; test.resume == "nudge" && median > soon {
				t.Errorf("half of the runs took more than %v", median)
			}
		})
	}
}

// TestNewMAC restores into a namespace with a different MAC address, while the
// peer pushes. The namespace has permanent entries for its neighbours' addresses,
// as some network plugins make them, so that it sends no neighbour requests that
// would give away its own new address. With announcements the peer reaches it at
// once; without them, and without a nudge, the peer sends to the old address
// until it looks up the address again.
func TestNewMAC(t *testing.T) {
	const soon, late = 50 * time.Millisecond, 5 * time.Second
	for name, more := range map[string]string{
		"announced": "", "alone": "announce-count = 0\nresume = \"none\"\nquiet = \"off\"",
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			withNetfreeze(t, settings{policy: "kill", log: log, more: more}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, []string{"pull=2,interval=5ms"})
			p.dump()
			p.dumped.awaitEnd()
			p.dumped.engine.remove(p.dumped)
			p.app.mac = strings.Replace(p.app.mac, "02:00:00:00", "02:00:00:99", 1)
			p.app.move(p.app.nextNetns(freeze(t)))
			for _, addr := range []netip.Addr{p.peer.v4, p.peer.v6} {
				p.app.topo.ip(p.app.netns, fmt.Sprintf("neigh replace %s lladdr %s dev %s nud permanent", addr, p.peer.mac, iface))
			}
			// Between two attempts of the peers, 1.4 and 3 s after the freeze: no
			// hint makes them try again within 200 ms of the last one.
			time.Sleep(2*time.Second - time.Since(p.from))
			if err := p.dumped.engine.restore(p.dumped); err != nil {
				t.Fatalf("restore: %v", err)
			}
			thaw := thawed(t, log)
			if name == "alone" {
				time.Sleep(late)
				for id, c := range p.carried(thaw) {
					if !c.at[0].IsZero() {
						t.Errorf("connection %d carried traffic after %v even without announcements: nothing was tested", id, c.at[0].Sub(thaw))
					}
				}
				return
			}
			p.awaitTraffic(patience, time.Now())
			p.checkAllBytes()
			n := p.packets.since(p.from)
			if err := n.stray(); err != nil {
				t.Error(err)
			}
			if n.announced[p.app.mac] == 0 {
				t.Errorf("nobody announced %s: %v", p.app.mac, n.announced)
			}
			for id, c := range p.carried(thaw) {
				at, err := c.lastOf(toApp)
				if err != nil {
					t.Fatalf("connection %d: %v", id, err)
				}
				if took := at.Sub(thaw); took > soon {
					t.Errorf("connection %d: first byte %v after the thaw, later than %v", id, took, soon)
				}
			}
		})
	}
}

// TestLastAck checks what leaves a frozen namespace once the images are complete, even
// when the dumped tree is ended: one pure ACK per connection, and nothing else.
func TestLastAck(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	withNetfreeze(t, settings{policy: "kill", log: log}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, []string{"pull=2", "push", "reqrep", "pull,half", "push,half"})
	conns := len(p.client.stats.Snapshots())
	p.dump()
	p.dumped.awaitEnd()
	poll(t, patience, "the settler to end", func() error {
		if left, _ := filepath.Glob(filepath.Join(stateDir, "*.sock")); len(left) > 0 {
			return fmt.Errorf("its socket is still there: %v", left)
		}
		return nil
	})
	dumped := logged(t, log, "repeating the last acknowledgement")
	if ended := logged(t, log, "ended silently"); ended.Before(dumped) {
		t.Errorf("the tree was ended %v before the peers were told", dumped.Sub(ended))
	}
	acks := map[string]int{}
	for at, packet := range p.packets.packets() {
		tcp, ok := packet.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ok || at.Before(dumped) || int(tcp.SrcPort) != p.app.port {
			continue
		}
		if payload(packet) > 0 || tcp.FIN || tcp.RST || tcp.SYN || !tcp.ACK {
			t.Errorf("%v after the dump: %+v", at.Sub(dumped), tcp)
		}
		acks[fmt.Sprintf("%s:%d", packet.NetworkLayer().NetworkFlow().Dst(), tcp.DstPort)]++
	}
	if len(acks) != conns {
		t.Errorf("%d connections were acknowledged, want %d", len(acks), conns)
	}
	for conn, n := range acks {
		if n != 1 {
			t.Errorf("%s got %d acknowledgements", conn, n)
		}
	}
}

// TestNudgeBound counts the packets of a nudge with a small limit.
func TestNudgeBound(t *testing.T) {
	const limit = 3
	withNetfreeze(t, settings{policy: "kill", more: fmt.Sprintf("nudge-packets = %d\nannounce-count = 0", limit)}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, []string{"pull=10,interval=5ms"})
	conns := len(p.client.stats.Snapshots())
	p.dump()
	p.dumped.awaitEnd()
	p.dumped.engine.remove(p.dumped)
	p.restore()
	n := p.packets.tally
	if n.icmpErrors == 0 || n.icmpErrors > limit*conns {
		t.Errorf("%d ICMP errors for %d connections, want at least 1 and at most %d", n.icmpErrors, conns, limit*conns)
	}
}

// TestNudgeMany restores 1,000 connections: a segment reaches each peer at once,
// and no more packets are sent than configured. Here the same processors send,
// receive and answer the packets, and may be busy otherwise: one of a few
// attempts has to be in time.
func TestNudgeMany(t *testing.T) {
	// Half of the shortest time after which a peer would try again by itself: the peers'
	// bytes are received between the packets that are sent, by the same processors.
	const within, attempts = 100 * time.Millisecond, 6
	log := filepath.Join(t.TempDir(), "log")
	withNetfreeze(t, settings{policy: "kill", log: log, more: "announce-count = 0"}, plainCRIU{})
	for range attempts {
		if nudgeMany(t, log) <= within {
			return
		}
	}
	t.Errorf("the last connection was nudged more than %v after the thaw, %d times", within, attempts)
}

// nudgeMany returns how long after the thaw the first segment of the last
// connection reached the peer.
func nudgeMany(t *testing.T, log string) time.Duration {
	t.Helper()
	const conns, limit = 1000, 16
	p := newPair(t, plainCRIU{}, true, []string{fmt.Sprintf("pull=%d,interval=300ms", conns/2)})
	p.dumpAndMove(freeze(t))
	if err := p.dumped.engine.restore(p.dumped); err != nil {
		t.Fatalf("restore: %v", err)
	}
	thaw := thawed(t, log)
	p.awaitTraffic(patience, time.Now())
	p.checkAllBytes()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
	first := map[string]time.Duration{} // by connection
	total := 0
	for at, packet := range p.packets.packets() {
		ip := packet.NetworkLayer()
		if at.Before(thaw) || ip == nil || ip.NetworkFlow().Src().String() != p.app.v4.String() && ip.NetworkFlow().Src().String() != p.app.v6.String() {
			continue
		}
		if tcp, ok := packet.Layer(layers.LayerTypeTCP).(*layers.TCP); ok {
			conn := fmt.Sprintf("%s:%d", ip.NetworkFlow().Dst(), tcp.DstPort)
			if _, known := first[conn]; !known {
				first[conn] = at.Sub(thaw)
			}
		}
		total += icmpErrors(packet)
	}
	if len(first) != conns {
		t.Fatalf("segments of %d connections were captured, want %d", len(first), conns)
	}
	times := slices.Sorted(maps.Values(first))
	t.Logf("the first segment after the thaw: median %v, last %v; %d ICMP errors", times[conns/2], times[conns-1], total)
	if total == 0 || total > limit*conns {
		t.Errorf("%d ICMP errors for %d connections, want at least 1 and at most %d per connection", total, conns, limit)
	}
	return times[conns-1]
}

// announcement returns the MAC address that a gratuitous ARP request announces,
// "" for any other ARP packet.
func announcement(arp *layers.ARP) string {
	if arp.Operation != layers.ARPRequest || !slices.Equal(arp.SourceProtAddress, arp.DstProtAddress) {
		return ""
	}
	var parts []string
	for _, b := range arp.SourceHwAddress {
		parts = append(parts, fmt.Sprintf("%02x", b))
	}
	return strings.Join(parts, ":")
}
