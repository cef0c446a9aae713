// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"slices"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// TestSurvey compares with Look and CRIULocks, whatever is in force.
func TestSurvey(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	check := func(what string) {
		t.Helper()
		st, locks, err := Survey(ns)
		must(t, err)
		wantState, err := Look(ns)
		must(t, err)
		checkState(t, what, st, wantState)
		wantLocks, err := CRIULocks(ns)
		must(t, err)
		if !slices.Equal(locks, wantLocks) {
			t.Errorf("%s: found the locks %q, want %q", what, locks, wantLocks)
		}
	}
	check("nothing")
	foreign(t, ns)
	check("rules of others")
	nstest.Run(t, ns, "nft", "add table inet CRIU-1; add table ip CRIU-2; add table inet CRIU-3")
	nstest.Run(t, ns, "iptables-nft", "-w", "-t", "filter", "-N", "CRIU")
	check("locks")
	nstest.Run(t, ns, "ip6tables-legacy", "-w", "-t", "filter", "-N", "CRIU")
	check("locks of every kind")
	for _, k := range backends {
		f := open(t, ns, k)
		must(t, f.Prepare(0))
		check(string(k) + " unarmed")
		must(t, f.Freeze(time.Minute))
		check(string(k) + " frozen")
		if k == backend.NFTables {
			must(t, f.Seal(0))
			check(string(k) + " sealed")
		}
		must(t, f.Thaw())
	}
}
