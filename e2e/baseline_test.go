//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// live is how long an address is on the network before CRIU is started to
// restore what had it: as long as a node takes to set up a pod.
const live = 2 * time.Second

// handFreeze is the least that stops a namespace's packets: the same two
// chains that the suite makes, written by hand.
const handFreeze = `
table inet by_hand {
	chain in { type filter hook input priority -400; meta mark 0xc114 accept; drop; }
	chain out { type filter hook output priority -400; meta mark 0xc114 accept; drop; }
}`

// mixed is traffic of all kinds, 10 connections over IPv4 and 10 over IPv6.
var mixed = []string{"push=4,interval=5ms", "reqrep=4,interval=5ms", "bulk=2"}

// halfClosed is traffic on connections of which one side has closed its half.
var halfClosed = []string{"push=2,half,interval=5ms", "pull=2,half,interval=5ms"}

// TestBaseline shows what goes wrong without the suite, and so that these
// tests would see it.
func TestBaseline(t *testing.T) {
	withoutSuite(t)
	t.Run("stopped", func(t *testing.T) {
		forEngines(t, func(t *testing.T, e engine) {
			p := newPair(t, e, true, mixed)
			p.dump()
			e.remove(p.server)
			poll(t, patience, "the peer to lose its connections", func() error {
				if n := p.client.broken(); n != 20 {
					return fmt.Errorf("%d of 20 are lost", n)
				}
				return nil
			})
			if n := p.packets.since(p.from); n.fin+n.rst == 0 {
				t.Error("neither FIN nor RST was captured")
			}
		})
	})
	t.Run("restored", func(t *testing.T) {
		forEngines(t, func(t *testing.T, e engine) {
			p := newPair(t, e, true, mixed)
			// Even if nothing is heard of the old namespace's end.
			mustRun(t, p.app.netns, handFreeze, "nft", "-f", "-")
			p.dump()
			e.remove(p.server)
			p.app.move(p.app.elsewhere(func(string) {}))
			time.Sleep(live)
			// It cannot go well, and how CRIU calls it is its affair.
			_ = e.restore(p.server)
			poll(t, patience, "the peer to lose a connection", func() error {
				if p.client.broken() == 0 {
					return fmt.Errorf("none is lost")
				}
				return nil
			})
			if n := p.packets.since(p.from); n.rst == 0 {
				t.Error("no RST was captured")
			}
		})
	})
}

// TestByHand does what the suite does, by hand and in the right order. It
// shows that what the other tests ask for can be had, and that they measure it
// without an error of their own.
func TestByHand(t *testing.T) {
	withoutSuite(t)
	for name, kinds := range map[string][]string{"mixed": mixed, "half closed": halfClosed} {
		t.Run(name, func(t *testing.T) {
			forEngines(t, func(t *testing.T, e engine) {
				p := newPair(t, e, true, kinds)
				freeze := func(netns string) { mustRun(t, netns, handFreeze, "nft", "-f", "-") }
				freeze(p.app.netns)
				p.dump()
				e.remove(p.server)
				p.app.move(p.app.elsewhere(freeze))
				time.Sleep(live)
				if err := e.restore(p.server); err != nil {
					t.Fatal(err)
				}
				restored := time.Now()
				mustRun(t, p.app.netns, "", "nft", "delete", "table", "inet", "by_hand")
				p.progress(patience, restored)
				t.Logf("every connection carried traffic after %s", time.Since(restored))
				p.settle()
				if err := p.packets.since(p.from).stray(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
