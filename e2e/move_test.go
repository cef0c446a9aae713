// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// TestMove tests the main purpose: a busy server is dumped with leave-running,
// ended by policy, and restored in a new namespace whose address has been live
// for a while. CRIU's own lock is skipped, or used in addition to the freeze.
func TestMove(t *testing.T) {
	for _, test := range []struct{ backend, lock string }{
		{"nftables", "skip"}, {"nftables", "nftables"}, {"iptables-nft", "skip"}, {"iptables-legacy", "criu"},
	} {
		t.Run(test.backend+","+test.lock, func(t *testing.T) {
			withNetfreeze(t, settings{policy: "kill", backend: test.backend, install: []string{"--network-lock", test.lock}})
			forEngines(t, func(t *testing.T, e engine) {
				p := newPair(t, e, true, mixed)
				if n := len(p.client.stats.Snapshots()); n != 20 {
					t.Fatalf("%d connections, want 20", n)
				}
				p.moveAway()
			})
		})
	}
}

// moveAway dumps, moves the host to a new namespace and restores there.
func (p *pair) moveAway() {
	t := p.dumped.t
	t.Helper()
	p.dumpAndMove(freeze(t))
	time.Sleep(live)
	p.restore()
}

// dumpAndMove dumps and moves the host to a new namespace. It calls birth with
// the new namespace before that is connected.
func (p *pair) dumpAndMove(birth func(netns string), options ...string) {
	p.dumped.t.Helper()
	p.dump(options...)
	p.dumped.awaitEnd()
	p.dumped.engine.remove(p.dumped)
	p.app.move(p.app.nextNetns(birth))
}

// TestHalfClosed moves connections that one side has half-closed: on the server
// they are in CLOSE-WAIT and FIN-WAIT-2, on the client the reverse.
func TestHalfClosed(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"})
	for _, dumpServer := range []bool{true, false} {
		name := map[bool]string{true: "server", false: "client"}[dumpServer]
		t.Run(name, func(t *testing.T) {
			forEngines(t, func(t *testing.T, e engine) {
				p := newPair(t, e, dumpServer, halfClosed)
				p.moveAway()
			})
		})
	}
}

// TestBoth is the case of CRIU's issue 2456: server and client are containers
// that exchange a message every millisecond, and both are dumped and restored
// elsewhere, one after the other.
func TestBoth(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill", install: []string{"--network-lock", "criu"}}, runtimeEngine("runc"))
	for _, test := range []struct {
		dumps, restores string // in this order: s for the server, c for the client
		gap             time.Duration
	}{
		{"sc", "sc", 0}, {"sc", "cs", time.Second}, {"cs", "sc", 5 * time.Second}, {"cs", "cs", 0}, {"sc", "cs", 5 * time.Second},
	} {
		t.Run(fmt.Sprintf("%s,%s,%s", test.dumps, test.restores, test.gap), func(t *testing.T) {
			t.Parallel()
			runc := runtimeEngine("runc")
			topo := newTopology(t)
			server, client := topo.newHost("server"), topo.newHost("client")
			rules := ruleset(t, server.netns)
			var ends endpoints
			ends.server = serve(t, runc, server)
			ends.client = connect(t, runc, client, server, []string{"reqrep", "push"})
			tasks := map[rune]*task{'s': ends.server, 'c': ends.client}
			ends.awaitTraffic(patience, time.Now())
			packets := startCapture(t, topo.switchNetns, everyPort)
			from := time.Now()
			for _, which := range test.dumps {
				k := tasks[which]
				if err := runc.dump(k, true); err != nil {
					t.Fatalf("dump: %v", err)
				}
				k.awaitEnd()
				runc.remove(k)
				time.Sleep(test.gap)
			}
			for _, which := range test.restores {
				k := tasks[which]
				k.host.move(k.host.nextNetns(freeze(t)))
				if err := runc.restore(k); err != nil {
					t.Fatalf("restore: %v", err)
				}
				if which != rune(test.restores[1]) {
					time.Sleep(test.gap)
				}
			}
			// The kernel of the first restored side waits a second before it
			// retransmits what it sent to a peer that was not there yet, and no
			// nudge shortens that.
			ends.awaitTraffic(2*time.Second, time.Now())
			awaitRelease(t, patience, server.netns, rules)
			awaitRelease(t, patience, client.netns, rules)
			ends.checkAllBytes()
			if err := packets.since(from).stray(); err != nil {
				t.Error(err)
			}
		})
	}
}
