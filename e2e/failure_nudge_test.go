// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestGoesOnAtOnce has tasks go on in place after seconds in which they were frozen:
// the dump fails late, or succeeds and the policy is to run on. The peers' timers have
// backed off meanwhile, so without a nudge the first byte comes seconds later.
func TestGoesOnAtOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		policy, script string
		fails          bool
	}{
		"failed": {"hold", "sleep 4; exit 1", true},
		"run":    {"run", "sleep 4", false},
	} {
		t.Run(name, func(t *testing.T) {
			withNetfreeze(t, settings{policy: tc.policy}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, few)
			err := p.dumped.engine.dump(p.dumped, true, scripted(script(t, "post-dump", tc.script), true)...)
			if (err != nil) != tc.fails {
				t.Fatalf("the dump: %v", err)
			}
			over := time.Now()
			awaitRelease(t, back, p.app.netns, p.rules)
			p.awaitTraffic(time.Second, over)
			t.Logf("every connection carried traffic after %s", time.Since(over))
			p.checkUnharmed(over)
		})
	}
}
