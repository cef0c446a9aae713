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
// segments that they retransmit into larger ones (tcp_retrans_try_collapse in
// net/ipv4/tcp_output.c) before they hear of the last acknowledgement. That may fall
// inside of one then: the peer takes no segment as acknowledged, and counts its
// attempts anew, so that it heeds no error until its timer has expired again.
func TestCollapsed(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	withNetfreeze(t, settings{policy: "kill", log: log}, plainCRIU{})
	const runs, outage = 3, 4 * time.Second
	var took []time.Duration
	for range runs {
		p := newPair(t, plainCRIU{}, true, []string{"pull=6,size=8,interval=1ms"})
		p.dumpAndMove(freeze(t), scripted(script(t, "network-lock", "sleep 1.3"), true)...)
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
	t.Logf("the last connection carried bytes after %v", took)
	if slices.Min(took) > soon {
		t.Errorf("no run took less than %v", soon)
	}
}
