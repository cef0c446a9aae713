// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHoldEnds has a hold end by itself: at once where the runtime asks the container to
// stop, whose grace period would pass in vain otherwise, or after the configured time.
// Either way not a packet tells the peers, and a restore goes on with the connections.
func TestHoldEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		more string
		do   func(t *testing.T, p *pair)
	}{
		"SIGTERM": {"", func(t *testing.T, p *pair) {
			mustRun(t, "", "", p.dumped.engine.String(), "kill", p.dumped.id, "TERM")
		}},
		"hold-then-kill": {`hold-then-kill = "1s"`, func(*testing.T, *pair) {}},
	} {
		t.Run(name, func(t *testing.T) {
			withNetfreeze(t, settings{policy: "hold", more: tc.more}, runtimeEngine("runc"), runtimeEngine("crun"))
			for _, e := range []engine{runtimeEngine("runc"), runtimeEngine("crun")} {
				t.Run(e.String(), func(t *testing.T) {
					t.Parallel()
					p := newPair(t, e, true, few)
					p.dump()
					p.dumped.awaitStop()
					time.Sleep(500 * time.Millisecond) // a signal that comes earlier counts for nothing
					asked := time.Now()
					tc.do(t, p)
					p.dumped.awaitEnd()
					if took := time.Since(asked); took > 3*time.Second {
						t.Errorf("it has ended after %v", took)
					}
					if err := p.packets.since(p.from).stray(); err != nil {
						t.Error(err)
					}
					p.dumped.engine.remove(p.dumped)
					p.restore()
				})
			}
		})
	}
}

// TestRestartInPlace starts another container in the namespace of one that a dump has
// ended, as kubelet does: it gets its network, though nobody has restored or thawed.
func TestRestartInPlace(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	withNetfreeze(t, settings{policy: "kill", log: log}, runtimeEngine("runc"))
	e := runtimeEngine("runc")
	p := newPair(t, e, true, few)
	p.dump()
	p.dumped.awaitEnd()
	p.dumped.engine.remove(p.dumped)
	if status(t, p.app.netns) == "" {
		t.Fatal("the namespace is not frozen")
	}
	ends := endpoints{server: serve(t, e, p.app)}
	awaitRelease(t, patience, p.app.netns, p.rules)
	if text, err := os.ReadFile(log); err != nil || !strings.Contains(string(text), "[NF506]") {
		t.Errorf("the log does not tell: %v\n%s", err, text)
	}
	ends.client = connect(t, plainCRIU{}, p.peer, p.app, few)
	ends.awaitTraffic(patience, time.Now())
}
