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

// pair starts a busy server on one new host and its client on another, which
// is the peer: never dumped, and a plain process whatever the engine is.
func pair(t *testing.T, e engine, kinds []string) (b both, app, peer *host) {
	t.Helper()
	w := newWorld(t)
	app, peer = w.newHost("app"), w.newHost("peer")
	b.server = serve(t, e, app)
	b.client = connect(t, plainCRIU{}, peer, app, kinds)
	b.progress(patience, time.Now())
	return b, app, peer
}

// TestBaseline shows what goes wrong without the suite, and so that these
// tests would see it.
func TestBaseline(t *testing.T) {
	withoutSuite(t)
	t.Run("stopped", func(t *testing.T) {
		forEngines(t, func(t *testing.T, e engine) {
			b, _, peer := pair(t, e, mixed)
			packets := startCapture(t, peer.netns, iface)
			from := time.Now()
			if err := e.dump(b.server, true); err != nil {
				t.Fatal(err)
			}
			e.remove(b.server)
			poll(t, patience, "the peer to lose its connections", func() error {
				if n := b.client.broken(); n != 20 {
					return fmt.Errorf("%d of 20 are lost", n)
				}
				return nil
			})
			if n := packets.since(from); n.fin+n.rst == 0 {
				t.Error("neither FIN nor RST was captured")
			}
		})
	})
	t.Run("restored", func(t *testing.T) {
		forEngines(t, func(t *testing.T, e engine) {
			b, app, peer := pair(t, e, mixed)
			packets := startCapture(t, peer.netns, iface)
			// Even if nothing is heard of the old namespace's end.
			mustRun(t, app.netns, handFreeze, "nft", "-f", "-")
			from := time.Now()
			if err := e.dump(b.server, true); err != nil {
				t.Fatal(err)
			}
			e.remove(b.server)
			app.move(app.elsewhere(func(string) {}))
			time.Sleep(live)
			// It cannot go well, and how CRIU calls it is its affair.
			_ = e.restore(b.server)
			poll(t, patience, "the peer to lose a connection", func() error {
				if b.client.broken() == 0 {
					return fmt.Errorf("none is lost")
				}
				return nil
			})
			if n := packets.since(from); n.rst == 0 {
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
	forEngines(t, func(t *testing.T, e engine) {
		b, app, peer := pair(t, e, mixed)
		packets := startCapture(t, peer.netns, iface)
		freeze := func(netns string) { mustRun(t, netns, handFreeze, "nft", "-f", "-") }
		freeze(app.netns)
		from := time.Now()
		if err := e.dump(b.server, true); err != nil {
			t.Fatal(err)
		}
		e.remove(b.server)
		app.move(app.elsewhere(freeze))
		time.Sleep(live)
		if err := e.restore(b.server); err != nil {
			t.Fatal(err)
		}
		restored := time.Now()
		mustRun(t, app.netns, "", "nft", "delete", "table", "inet", "by_hand")
		b.progress(patience, restored)
		t.Logf("every connection carried traffic %s after the restore", time.Since(restored))
		b.settle()
		if err := packets.since(from).stray(); err != nil {
			t.Error(err)
		}
	})
}
