// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestCollapsed has dumps that take so long that the peers have collapsed the small
// segments that they retransmit into larger ones before they hear of the last
// acknowledgement, which falls inside of one: the delayed one was dropped by the
// freeze. A restore at once finds peers that heed no error, and would wait as long
// again as they have; see nudge.Acks. What is left to wait for is a peer's shortest
// time-out since its last attempt, 200 ms.
func TestCollapsed(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	withNetfreeze(t, settings{policy: "kill", log: log}, plainCRIU{})
	const runs, outage = 3, 2200 * time.Millisecond // peers retransmit after 0.2, 0.6, 1.4 and 3 s
	for _, interval := range []string{"1ms", "4ms"} {
		var took []time.Duration
		for range runs {
			p := newPair(t, plainCRIU{}, true, []string{"pull=6,size=8,interval=" + interval})
			p.dumpAndMove(freeze(t), scripted(script(t, "network-lock", "sleep 1.55"), true)...)
			time.Sleep(outage - time.Since(p.from))
			if err := p.dumped.engine.restore(p.dumped); err != nil {
				t.Fatalf("restore: %v", err)
			}
			thaw := thawed(t, log)
			p.awaitTraffic(2*outage+patience, thaw)
			p.checkAllBytes()
			worst := time.Duration(0)
			for id, c := range p.carried(thaw) {
				at, err := c.lastOf(toApp)
				if err != nil {
					t.Errorf("connection %d: %v", id, err)
					continue
				}
				worst = max(worst, at.Sub(thaw))
			}
			took = append(took, worst)
		}
		t.Logf("8 bytes every %s: the last connection carried bytes after %v", interval, took)
		const deaf = 400 * time.Millisecond // without that it takes 0.8 s and more
		if slices.Min(took) > deaf {
			t.Errorf("8 bytes every %s: no run took less than %v", interval, deaf)
		}
	}
}
