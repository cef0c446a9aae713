// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/hooks"
	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
)

// reporter notes in the journal what has changed. There is no report before the first
// action of a dump or a restore.
type reporter struct {
	journal *journal.Journal
	said    hooks.Facts // what the journal knows already

	mu      sync.Mutex // for what follows: several goroutines log
	begun   bool
	pending []journal.Event // what was logged before
}

// did notes that an action began and took so long, and what is known after it. tx is nil
// if it was refused.
func (r *reporter) did(req action.Request, began time.Time, took time.Duration, tx hooks.Transaction, err error) {
	e := journal.Event{At: began, Kind: journal.Action, Name: req.Action, TookNS: took.Nanoseconds()}
	if err != nil {
		e.Error = code.Any(err).Error()
	}
	if tx != nil {
		f := tx.Facts()
		e.State = f.State
		r.begin(began, f.Header)
		r.journal.Add(e)
		r.look(f)
		return
	}
	op, ok := map[string]string{action.PreDump: "dump", action.PreRestore: "restore"}[req.Action]
	if !ok {
		return // nothing has begun
	}
	r.begin(began, journal.Header{Op: op})
	r.journal.Add(e)
	r.journal.Add(journal.Event{Kind: journal.Outcome, Name: journal.Refused})
}

// begin notes what the report is about. A restore may learn of its namespace later.
func (r *reporter) begin(at time.Time, h journal.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun && h.NetNS == r.said.Header.NetNS {
		return
	}
	r.said.Header = h
	r.journal.Add(journal.Event{At: at, Kind: journal.Begin, Header: &h})
	for _, e := range r.pending {
		r.journal.Add(e)
	}
	r.begun, r.pending = true, nil
}

// look notes what has become known of the transaction.
func (r *reporter) look(f hooks.Facts) {
	if !f.Frozen.IsZero() && !f.Frozen.Equal(r.said.Frozen) {
		r.journal.Add(journal.Event{At: f.Frozen, Kind: journal.Frozen})
	}
	if !f.Thawed.IsZero() && !f.Thawed.Equal(r.said.Thawed) {
		r.journal.Add(journal.Event{At: f.Thawed, Kind: journal.Thawed})
	}
	if f.Tasks != r.said.Tasks || len(f.Conns) != len(r.said.Conns) {
		r.journal.Add(journal.Event{Kind: journal.Connections, Tasks: f.Tasks, Count: len(f.Conns), Conns: journal.Limit(f.Conns)})
	}
	if f.Outcome != r.said.Outcome {
		r.journal.Add(journal.Event{Kind: journal.Outcome, Name: f.Outcome})
	}
	f.Header = r.said.Header
	r.said = f
}

// Levels implements logrus.Hook.
func (r *reporter) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel, logrus.InfoLevel}
}

// Fire implements logrus.Hook: what is said in the log is part of the report.
func (r *reporter) Fire(e *logrus.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	said := journal.Event{At: e.Time, Kind: journal.Message, Level: e.Level.String(), Text: e.Message}
	if !r.begun {
		r.pending = append(r.pending, said)
		return nil
	}
	r.journal.Add(said)
	return nil
}
