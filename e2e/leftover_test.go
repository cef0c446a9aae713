// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// TestCRIULeftover has CRIU leave its own network lock behind, as it does when
// it is killed where our scripts are not installed: "netfreeze status" reports
// the lock, and "netfreeze thaw" removes it and nothing else.
func TestCRIULeftover(t *testing.T) {
	withoutNetfreeze(t)
	p := newPair(t, plainCRIU{}, true, few)
	end := script(t, "post-dump", "kill -KILL $PPID")
	if err := p.dumped.engine.dump(p.dumped, true, "--network-lock", "nftables", "--action-script", end); err == nil {
		t.Fatal("the dump has not failed")
	}
	if ruleset(t, p.app.netns) == p.rules {
		t.Fatal("CRIU has left no lock behind")
	}
	mustRun(t, p.app.netns, "", "nft", "add table inet mine")
	if s := status(t, p.app.netns); !strings.Contains(s, "criu-leftover") {
		t.Errorf("netfreeze status does not report CRIU's lock: %q", s)
	}
	mustRun(t, "", "", netfreeze, "thaw", "--criu-leftovers", p.app.netns)
	mustRun(t, p.app.netns, "", "nft", "delete table inet mine")
	awaitRelease(t, back, p.app.netns, p.rules)
}
