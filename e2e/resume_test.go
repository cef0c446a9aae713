//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
)

// soon is how soon traffic flows after a thaw with a nudge, however long the
// outage was. It is a round trip, on a machine that has other tests to run; a
// peer left to its timer may take as long again as the outage.
const soon = 150 * time.Millisecond

// TestNudge restores a server that only listens to peers that push without
// pause: the first byte is up to the peers. With the nudge it comes at once, in
// most of the runs even with a retransmission just before.
func TestNudge(t *testing.T) {
	const runs = 5
	for _, resume := range []string{"nudge", "none"} {
		withSuite(t, settings{policy: "kill", more: fmt.Sprintf("resume = %q", resume)}, plainCRIU{})
		var took []time.Duration
		for range runs {
			p := newPair(t, plainCRIU{}, true, []string{"pull=2,interval=5ms"})
			p.dump()
			p.dumped.gone()
			p.dumped.engine.remove(p.dumped)
			p.app.move(p.app.elsewhere(freeze(t)))
			time.Sleep(live)
			if err := p.dumped.engine.restore(p.dumped); err != nil {
				t.Fatalf("restore: %v", err)
			}
			restored := time.Now()
			p.progress(patience, restored)
			took = append(took, time.Since(restored))
			p.settle()
			if err := p.packets.since(p.from).stray(); err != nil {
				t.Error(err)
			}
		}
		slices.Sort(took)
		t.Logf("resume = %q: every connection carried traffic after %v", resume, took)
		if median := took[runs/2]; resume == "nudge" && median > soon {
			t.Errorf("half of the runs took more than %v", median)
		}
	}
}

// TestNewMAC restores into a namespace with another MAC address than the dumped
// one had: the peer hears of it at once.
func TestNewMAC(t *testing.T) {
	withSuite(t, settings{policy: "kill"}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, few)
	p.dump()
	p.dumped.gone()
	p.dumped.engine.remove(p.dumped)
	p.app.mac = strings.Replace(p.app.mac, "02:00:00:00", "02:00:00:99", 1)
	p.app.move(p.app.elsewhere(freeze(t)))
	if err := p.dumped.engine.restore(p.dumped); err != nil {
		t.Fatalf("restore: %v", err)
	}
	restored := time.Now()
	p.progress(patience, restored)
	if took := time.Since(restored); took > time.Second {
		t.Errorf("every connection carried traffic after %v only", took)
	}
	p.settle()
	n := p.packets.since(p.from)
	if err := n.stray(); err != nil {
		t.Error(err)
	}
	if n.announced[p.app.mac] == 0 {
		t.Errorf("nobody announced %s: %v", p.app.mac, n.announced)
	}
}

// TestNudgeBound counts the packets of a nudge with a small limit.
func TestNudgeBound(t *testing.T) {
	const limit = 3
	withSuite(t, settings{policy: "kill", more: fmt.Sprintf("nudge-packets = %d\nannounce-count = 0", limit)}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, []string{"pull=10,interval=5ms"})
	conns := len(p.client.stats.Snapshots())
	p.dump()
	p.dumped.gone()
	p.dumped.engine.remove(p.dumped)
	p.restore()
	n := p.packets.tally
	if n.icmpErrors == 0 || n.icmpErrors > limit*conns {
		t.Errorf("%d ICMP errors for %d connections, at most %d are allowed and some are due", n.icmpErrors, conns, limit*conns)
	}
}

// announcement returns the MAC address that a gratuitous ARP request announces.
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
