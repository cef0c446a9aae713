//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// TestMove is the main job: a busy server is dumped with leave-running, ended
// by policy, and restored in a fresh namespace whose address has been live for
// a while. CRIU's own lock is skipped, or there beside the freeze.
func TestMove(t *testing.T) {
	for _, test := range []struct{ backend, lock string }{
		{"nftables", "skip"}, {"nftables", "nftables"}, {"iptables-nft", "skip"}, {"iptables-legacy", "criu"},
	} {
		t.Run(test.backend+","+test.lock, func(t *testing.T) {
			withSuite(t, settings{policy: "kill", backend: test.backend, install: []string{"--network-lock", test.lock}})
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

// moveAway dumps, takes the host to a fresh namespace and restores there.
func (p *pair) moveAway() {
	t := p.dumped.t
	t.Helper()
	p.leave(freeze(t))
	time.Sleep(live)
	p.restore()
}

// leave dumps and takes the host to a fresh namespace; what is called with that
// before it is connected is its birth.
func (p *pair) leave(birth func(netns string)) {
	p.dumped.t.Helper()
	p.dump()
	p.dumped.gone()
	p.dumped.engine.remove(p.dumped)
	p.app.move(p.app.elsewhere(birth))
}

// TestHalfClosed moves connections of which one side has closed its half: in
// the server's eyes CLOSE-WAIT and FIN-WAIT-2, in the client's the reverse.
func TestHalfClosed(t *testing.T) {
	withSuite(t, settings{policy: "kill"})
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

// TestBoth is the case of CRIU's issue 2456: server and client are containers,
// both are dumped and both restored elsewhere, one after the other, while they
// exchange a message every millisecond.
func TestBoth(t *testing.T) {
	withSuite(t, settings{policy: "kill", install: []string{"--network-lock", "criu"}}, runtimeEngine("runc"))
	for _, test := range []struct {
		dumps, restores string // in this order: s for the server, c for the client
		gap             time.Duration
	}{
		{"sc", "sc", 0}, {"sc", "cs", time.Second}, {"cs", "sc", 5 * time.Second}, {"cs", "cs", 0}, {"sc", "cs", 5 * time.Second},
	} {
		t.Run(fmt.Sprintf("%s,%s,%s", test.dumps, test.restores, test.gap), func(t *testing.T) {
			t.Parallel()
			runc := runtimeEngine("runc")
			w := newWorld(t)
			server, client := w.newHost("server"), w.newHost("client")
			rules := ruleset(t, server.netns)
			var b both
			b.server = serve(t, runc, server)
			b.client = connect(t, runc, client, server, []string{"reqrep", "push"})
			tasks := map[rune]*task{'s': b.server, 'c': b.client}
			b.progress(patience, time.Now())
			packets := startCapture(t, w.sw, everyPort)
			from := time.Now()
			for _, which := range test.dumps {
				k := tasks[which]
				if err := runc.dump(k, true); err != nil {
					t.Fatalf("dump: %v", err)
				}
				k.gone()
				runc.remove(k)
				time.Sleep(test.gap)
			}
			for _, which := range test.restores {
				k := tasks[which]
				k.host.move(k.host.elsewhere(freeze(t)))
				if err := runc.restore(k); err != nil {
					t.Fatalf("restore: %v", err)
				}
				if which != rune(test.restores[1]) {
					time.Sleep(test.gap)
				}
			}
			// A restored kernel waits a second before it tries again what it has
			// sent to a peer that was not there yet, and no hint shortens that.
			b.progress(2*time.Second, time.Now())
			released(t, patience, server.netns, rules)
			released(t, patience, client.netns, rules)
			b.settle()
			if err := packets.since(from).stray(); err != nil {
				t.Error(err)
			}
		})
	}
}
