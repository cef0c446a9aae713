// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// live is how long an address is on the network before CRIU starts to restore
// the task that had it: about as long as a node takes to set up a pod.
const live = 2 * time.Second

// handFreeze is the minimum that stops a namespace's packets: two chains like
// those of criu-netfreeze, written by hand.
const handFreeze = `
table inet by_hand {
	chain in { type filter hook input priority -400; meta mark 0xc114 accept; drop; }
	chain out { type filter hook output priority -400; meta mark 0xc114 accept; drop; }
}`

// mixed is traffic of all kinds, 10 connections over IPv4 and 10 over IPv6.
var mixed = []string{"push=4,interval=5ms", "reqrep=4,interval=5ms", "bulk=2"}

// halfClosed is traffic on connections of which one side has closed its half.
var halfClosed = []string{"push=2,half,interval=5ms", "pull=2,half,interval=5ms"}

// TestBaseline shows what goes wrong without criu-netfreeze, and thereby that
// these tests would notice it.
func TestBaseline(t *testing.T) {
	withoutNetfreeze(t)
	t.Run("stopped", func(t *testing.T) {
		forEngines(t, func(t *testing.T, e engine) {
			p := newPair(t, e, true, mixed)
			p.dump()
			e.remove(p.server)
			poll(t, patience, "the peer to lose its connections", func() error {
				if n := p.client.broken(); n != 20 {
					return fmt.Errorf("%d of 20 have been lost", n)
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
			// Even if nothing of the old task's end reaches the peer.
			mustRun(t, p.app.netns, handFreeze, "nft", "-f", "-")
			p.dump()
			e.remove(p.server)
			p.app.move(p.app.nextNetns(func(string) {}))
			time.Sleep(live)
			// Whether CRIU reports success does not matter: the peer's view does.
			_ = e.restore(p.server)
			poll(t, patience, "the peer to lose a connection", func() error {
				if p.client.broken() == 0 {
					return fmt.Errorf("none has been lost")
				}
				return nil
			})
			if n := p.packets.since(p.from); n.rst == 0 {
				t.Error("no RST was captured")
			}
		})
	})
}

// TestByHand does by hand, in the right order, what criu-netfreeze does. It
// shows that what the other tests demand can be achieved, and that the test
// code adds no errors of its own.
func TestByHand(t *testing.T) {
	withoutNetfreeze(t)
	for name, kinds := range map[string][]string{"mixed": mixed, "half closed": halfClosed} {
		t.Run(name, func(t *testing.T) {
			forEngines(t, func(t *testing.T, e engine) {
				p := newPair(t, e, true, kinds)
				freeze := func(netns string) { mustRun(t, netns, handFreeze, "nft", "-f", "-") }
				freeze(p.app.netns)
				p.dump()
				e.remove(p.server)
				p.app.move(p.app.nextNetns(freeze))
				time.Sleep(live)
				if err := e.restore(p.server); err != nil {
					t.Fatal(err)
				}
				restored := time.Now()
				mustRun(t, p.app.netns, "", "nft", "delete", "table", "inet", "by_hand")
				p.awaitTraffic(patience, restored)
				t.Logf("every connection carried traffic after %s", time.Since(restored))
				p.checkAllBytes()
				if err := p.packets.since(p.from).stray(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
