// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/hooks"
	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
)

// known is a transaction of which no more is known than this.
type known struct {
	hooks.Transaction
	facts hooks.Facts
}

func (k *known) Facts() hooks.Facts { return k.facts }

// story reports what do does, and returns the report, nil if there is none.
func story(t *testing.T, do func(r *reporter, log *logrus.Logger)) *journal.Report {
	t.Helper()
	old := journal.Dir
	journal.Dir = filepath.Join(t.TempDir(), "reports")
	t.Cleanup(func() { journal.Dir = old })
	r := &reporter{journal: journal.Open("7@9")}
	log := logrus.New()
	log.SetOutput(t.Output())
	log.AddHook(r)
	do(r, log)
	if err := r.journal.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := journal.All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		return nil
	}
	got, err := journal.Find("last")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func kinds(r *journal.Report) (all []journal.Kind) {
	for _, e := range r.Events {
		all = append(all, e.Kind)
	}
	return all
}

func TestReporter(t *testing.T) {
	got := story(t, func(r *reporter, log *logrus.Logger) {
		frozen := time.Now()
		tx := &known{facts: hooks.Facts{Header: journal.Header{Op: "dump", NetNS: "net:[1]"}, State: "prepared"}}
		log.Info("early")
		log.Debug("never")
		r.did(action.Request{Action: action.PreDump}, frozen, time.Millisecond, tx, nil)
		tx.facts.Frozen, tx.facts.State = frozen, "frozen"
		r.did(action.Request{Action: action.NetworkLock}, frozen, time.Millisecond, tx, errors.New("refused"))
		r.look(tx.facts) // nothing new
		tx.facts.Thawed, tx.facts.Outcome, tx.facts.Tasks = frozen.Add(time.Second), journal.Held, 3
		r.look(tx.facts)
	})
	want := []journal.Kind{
		journal.Begin, journal.Message, journal.Action, journal.Action, journal.Frozen, journal.Thawed,
		journal.Connections, journal.Outcome,
	}
	if got == nil || !slices.Equal(kinds(got), want) {
		t.Fatalf("got %+v, want %v", got, want)
	}
	if d, ok := got.FrozenFor(); !ok || d != time.Second || got.Outcome != journal.Held || got.Tasks != 3 || got.Op != "dump" {
		t.Errorf("got %+v", got)
	}
	if e := got.Events[3]; e.State != "frozen" || e.Error != "refused [NF901]" {
		t.Errorf("the second action: %+v", e)
	}
}

// TestReporterRefused has a report of what was refused, and none of what never began.
func TestReporterRefused(t *testing.T) {
	refused := func(name string) *journal.Report {
		return story(t, func(r *reporter, log *logrus.Logger) {
			log.Error("no")
			r.did(action.Request{Action: name}, time.Now(), time.Millisecond, nil, errors.New("no"))
		})
	}
	if got := refused(action.PreRestore); got == nil || got.Op != "restore" || got.Outcome != journal.Refused {
		t.Errorf("a restore: %+v", got)
	}
	if got := refused(action.NetworkUnlock); got != nil {
		t.Errorf("an action of nothing: %+v", got)
	}
}
