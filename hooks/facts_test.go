// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// TestFacts looks at what a report says of dumps and restores that have come to an end.
func TestFacts(t *testing.T) {
	with := func(phase record.Phase, policy config.Policy) common {
		return common{freeze: &freeze.Freeze{Record: &record.Record{Phase: phase}}, set: config.Settings{Policy: policy}}
	}
	for _, tc := range []struct {
		state   dumpState
		decided outcome
		phase   record.Phase
		policy  config.Policy
		want    string
	}{
		{dumpCommitted, undecided, record.Committed, config.Hold, ""},
		{dumpSettled, succeeded, record.Held, config.Hold, journal.Held},
		{dumpSettled, succeeded, record.Ended, config.Kill, journal.Ended},
		{dumpSettled, ended, record.Ended, config.Run, journal.Ended},
		{dumpSettled, succeeded, record.Isolated, config.Isolate, journal.Isolated},
		{dumpSettled, succeeded, record.Committed, config.Run, journal.WentOn},
		{dumpSettled, failed, record.Running, config.Kill, journal.Failed},
	} {
		d := newDump(with(tc.phase, tc.policy))
		d.now, d.decided = tc.state, tc.decided
		if got := d.Facts(); got.Outcome != tc.want || got.State != tc.state.String() {
			t.Errorf("a dump, %v, phase %s, policy %s: %+v, want %q", tc.state, tc.phase, tc.policy, got, tc.want)
		}
	}
	for _, tc := range []struct {
		state restoreState
		phase record.Phase
		want  string
	}{
		{restoreFrozen, record.Running, ""},
		{restoreFinished, record.Running, journal.Restored},
		{restoreSettled, record.Running, journal.Failed},
		{restoreSettled, record.Frozen, journal.Kept},
	} {
		r := newRestore(with(tc.phase, config.Hold))
		r.now = tc.state
		if got := r.Facts(); got.Outcome != tc.want {
			t.Errorf("a restore, %v, phase %s: %+v, want %q", tc.state, tc.phase, got, tc.want)
		}
	}
}
