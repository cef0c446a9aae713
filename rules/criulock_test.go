// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"slices"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// TestCRIULocks finds and removes the rules with which CRIU locks the network, but
// nothing that merely looks like them.
func TestCRIULocks(t *testing.T) {
	t.Parallel()
	ns := nstest.Isolated(t)
	foreign(t, ns.Namespace)
	for _, family := range []string{"ip", "ip6"} {
		for _, variant := range []string{"nft", "legacy"} {
			tool := family + "tables-" + variant
			nstest.Run(t, ns.Namespace, tool, "-w", "-t", "filter", "-N", "CRIUS") // not CRIU's
			nstest.Run(t, ns.Namespace, tool, "-w", "-t", "filter", "-A", "OUTPUT", "-p", "udp", "-j", "CRIUS")
		}
	}
	nstest.Run(t, ns.Namespace, "nft", "add table inet CRIU-other")
	before := everything(t, ns.Namespace)
	keep, err := CRIULocks(ns.Namespace)
	must(t, err)
	if !slices.Equal(keep, []string{"CRIU-other"}) {
		t.Errorf("found %q before there was a lock", keep)
	}

	nstest.Run(t, ns.Namespace, "nft", `add table inet CRIU-1234; add chain inet CRIU-1234 output { type filter hook output priority 0; policy drop; }`)
	for _, family := range []string{"ip", "ip6"} {
		for _, variant := range []string{"nft", "legacy"} {
			tool := family + "tables-" + variant
			for _, args := range [][]string{{"-N", "CRIU"}, {"-I", "INPUT", "-j", "CRIU"}, {"-I", "OUTPUT", "-j", "CRIU"}, {"-A", "CRIU", "-j", "DROP"}} {
				nstest.Run(t, ns.Namespace, tool, append([]string{"-w", "-t", "filter"}, args...)...)
			}
		}
	}
	locks, err := CRIULocks(ns.Namespace)
	must(t, err)
	slices.Sort(locks)
	if want := []string{"CRIU", "CRIU", "CRIU-1234", "CRIU-other"}; !slices.Equal(locks, want) {
		t.Errorf("found %q, want %q", locks, want)
	}
	for range 2 {
		must(t, RemoveCRIULocks(ns, keep))
		if got := everything(t, ns.Namespace); got != before {
			t.Errorf("the rules are\n%s\nand were\n%s", got, before)
		}
	}
}
