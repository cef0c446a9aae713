// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// quietPushers are peers that send all the time.
var quietPushers = []string{"pull=3,size=8,interval=1ms", "pull,size=4096,interval=2ms", "pull,size=8,interval=1ms,half", "bulk,size=64,interval=2ms"}

// checkQuiet checks that every peer was quiet from the dump's beginning on, repeated nothing,
// and went on at once (most of them at least) when it was told to, after the outage. It returns
// when the last one was told.
func (p *pair) checkQuiet(over time.Time) (told time.Time) {
	t := p.dumped.t
	t.Helper()
	var took []time.Duration
	var shut time.Time
	for id, x := range p.exchanges(over) {
		waited, err := x.waited()
		if err != nil || x.resent > 0 {
			t.Errorf("connection %d: %d segments were repeated; %v:\n%s", id, x.resent, err, strings.Join(x.text, "\n"))
		}
		if err != nil {
			continue
		}
		took = append(took, waited)
		if x.open.After(told) {
			told = x.open
		}
		if x.shut.After(shut) {
			shut = x.shut
		}
	}
	if len(took) == 0 {
		t.Fatal("nothing was measured")
	}
	t.Logf("shut within %s, open again after %s; first bytes then after %s", shut.Sub(p.from), told.Sub(p.from), spread(took))
	if median(took) > atOnce {
		t.Errorf("the first bytes come %s after the peers were told to go on", median(took))
	}
	return told
}

// TestQuietInPlace has the tasks go on where they are: after a dump that fails at whatever
// moment, with CRIU killed, by policy, or when a hold is undone. Each time the peers are told,
// and go on at once.
func TestQuietInPlace(t *testing.T) {
	for _, test := range []struct {
		name, policy, action, do string
		fails                    bool
	}{
		{"fails before the freeze", "kill", "pre-dump", "exit 1", true},
		{"CRIU is killed before the freeze", "kill", "pre-dump", "kill -KILL $PPID", true},
		{"fails in the freeze", "kill", "network-lock", "sleep 1; exit 1", true},
		{"CRIU is killed in the freeze", "kill", "network-lock", "sleep 1; kill -KILL $PPID", true},
		{"fails at the end", "kill", "post-dump", "exit 1", true},
		{"runs on", "run", "post-dump", "true", false},
		{"is held", "hold", "post-dump", "true", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			withNetfreeze(t, settings{policy: test.policy, more: quietMode.config}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, quietPushers)
			p.from = time.Now()
			err := p.dumped.engine.dump(p.dumped, true, scripted(script(t, test.action, test.do), true)...)
			if (err != nil) != test.fails {
				t.Fatalf("the dump: %v", err)
			}
			over := time.Now()
			if test.policy == "hold" {
				p.dumped.awaitStop()
				time.Sleep(time.Second)
				over = time.Now()
				mustRun(t, "", "", netfreeze, "thaw", fmt.Sprint(p.dumped.pid))
			}
			p.checkUnharmed(over)
			if told := p.checkQuiet(p.from); told.Sub(over) > back {
				t.Errorf("the last peer was told %s after it was over", told.Sub(over))
			}
		})
	}
}

// windowsShut is how long the kernel keeps windows shut if nobody opens them: quiet-time,
// and 5 s for CRIU to get as far as the network lock.
const windowsShut = 5300 * time.Millisecond

// TestQuietOrphan kills CRIU and the settler when the windows are shut, so that nobody opens
// them: the kernel does when its time is over, and the peers' own probes find out.
func TestQuietOrphan(t *testing.T) {
	withNetfreeze(t, settings{policy: "hold", more: quietMode.config}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, []string{"pull=3,size=8,interval=1ms"})
	p.from = time.Now()
	p.dumpOrphaned("pre-dump")
	// The app may read in a moment what had come before.
	p.awaitTraffic(2*windowsShut+patience, time.Now().Add(windowsShut/2))
	mustRun(t, "", "", netfreeze, "thaw", p.app.netns) // what else there is
	p.checkUnharmed(time.Now())
	// A probe comes after twice the time at most since the one before.
	told := p.checkQuiet(p.from)
	if after := told.Sub(p.from); after < windowsShut/2 || after > 2*windowsShut+time.Second {
		t.Errorf("the peers were told after %s, where the kernel's time is %s", after, windowsShut)
	}
}

// TestQuietFar dumps with a round trip of 100 ms: what the peers have sent meanwhile still
// arrives before the freeze. Where the time that is allowed is too short for that, the windows
// are opened again, and the dump goes on as it would without.
func TestQuietFar(t *testing.T) {
	const roundTrip = 100 * time.Millisecond
	for _, test := range []struct {
		name, more string
		quiet      bool
	}{
		{"in time", quietMode.config, true},
		{"too late", quietMode.config + "\nquiet-time = \"50ms\"", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			withNetfreeze(t, settings{policy: "kill", log: log, more: test.more}, plainCRIU{})
			topo := newTopology(t)
			p := &pair{app: topo.newHost("app"), peer: topo.newFarHost("peer", roundTrip/2)}
			p.start(t, plainCRIU{}, true, append(quietPushers, "pull,size=65536,interval=2ms"))
			time.Sleep(5 * roundTrip) // until the round trip has been measured
			p.from = time.Now()
			p.dumpAndMove(freeze(t))
			time.Sleep(time.Second - time.Since(p.from))
			if err := p.dumped.engine.restore(p.dumped); err != nil {
				t.Fatalf("restore: %v", err)
			}
			thaw := thawed(t, log)
			p.checkUnharmed(time.Now())
			if test.quiet {
				p.checkQuiet(thaw)
			}
		})
	}
}

// TestQuietIptables dumps with the back ends that cannot change a window: the log says so
// once, no window is shut, and the peers are nudged.
func TestQuietIptables(t *testing.T) {
	for _, backend := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(backend, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			withNetfreeze(t, settings{policy: "kill", backend: backend, log: log, more: quietMode.config}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, quietPushers)
			p.from = time.Now()
			p.dumpAndMove(freeze(t))
			moved := time.Now()
			p.restore()
			for id, x := range p.exchanges(moved) {
				if !x.shut.IsZero() && x.shut.Before(moved) {
					t.Errorf("connection %d: its window was shut after %s", id, x.shut.Sub(p.from))
				}
			}
			said, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(said), "quiet"); n != 1 {
				t.Errorf("the log speaks of quiet peers in %d places:\n%s", n, said)
			}
		})
	}
}
