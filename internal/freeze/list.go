// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// Status is one line of netfreeze status.
type Status struct {
	ID          string       `json:"id"`
	Container   string       `json:"container,omitempty"`
	Name        string       `json:"name,omitempty"`
	Pod         string       `json:"pod,omitempty"` // namespace/name
	PID         int          `json:"pid,omitempty"` // the root task, while it lives
	NetNS       string       `json:"netns"`
	Path        string       `json:"path,omitempty"`
	Address     string       `json:"address,omitempty"` // of a guard
	Scope       string       `json:"scope"`             // netns, connections, or resets of a guard
	Policy      string       `json:"policy,omitempty"`
	Why         string       `json:"why,omitempty"` // what chose the policy
	State       string       `json:"state"`         // running, committed, held, isolated, ended, frozen, orphaned, criu-leftover, guard
	Backend     backend.Kind `json:"backend"`
	Since       time.Time    `json:"since,omitzero"`
	Frozen      bool         `json:"frozen"`       // as the kernel says
	LeftSeconds float64      `json:"left_seconds"` // until the kernel ends it
	Note        string       `json:"note,omitempty"`
}

// List returns what is frozen, oldest first, as the kernel sees it now. Records
// of what has gone with its namespace, or has timed out with nothing left to
// undo, are cleared away.
func (k *Keeper) List() ([]Status, error) {
	records, err := record.All()
	errs := []error{err}
	var list []Status
	for _, r := range records {
		s, stale, err := k.look(r)
		errs = append(errs, err)
		if stale {
			errs = append(errs, k.discard(r))
			continue
		}
		list = append(list, s)
	}
	left, err := k.leftovers()
	list, errs = append(list, left...), append(errs, err)
	guarded, err := guardStatus()
	list, errs = append(list, guarded...), append(errs, err)
	record.Sweep()
	slices.SortFunc(list, func(a, b Status) int { return a.Since.Compare(b.Since) })
	return list, errors.Join(errs...)
}

// discard removes a record that nobody needs any more, and what is left of its
// rules, which drop nothing by now.
func (k *Keeper) discard(r *record.Record) error {
	ns, err := find(r)
	if errors.Is(err, netns.ErrGone) {
		return r.Remove()
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	return lockedIfPossible(ns, func() error {
		var shared *SharedError
		if err := k.removeRules(ns, []*record.Record{r}); err != nil && !errors.As(err, &shared) {
			return err
		}
		return r.Remove()
	})
}

// Tidy discards what is over, and what killed settlers have left. What fails is
// left to the next one.
func (k *Keeper) Tidy() {
	records, _ := record.All()
	for _, r := range records {
		if r.Over() || lost(r) {
			_ = k.discard(r)
		}
	}
	record.Sweep()
}

// lost reports whether the namespace of a dump that has ended is gone with its tasks:
// the restore makes another one.
func lost(r *record.Record) bool {
	if r.Op != record.Dump || r.Phase != record.Ended || r.Busy() || r.Alive() {
		return false
	}
	ns, err := find(r)
	if err == nil {
		_ = ns.Close()
	}
	return errors.Is(err, netns.ErrGone)
}

// look compares a record with the kernel. It is stale if nothing is left that
// anybody could undo.
func (k *Keeper) look(r *record.Record) (s Status, stale bool, err error) {
	s = Status{
		ID: r.ID, Container: r.Container.ID, Name: r.Container.Name, Pod: r.Container.Pod,
		NetNS: r.NetNS.String(), Path: r.Path, Scope: string(r.Scope), Policy: r.Policy, Why: r.Why,
		State: string(r.Phase), Backend: r.Backend, Since: r.Since, Note: noteOf(r),
	}
	alive := r.Alive()
	if alive {
		s.PID = r.Tree[0].PID
	}
	if running := runningOf(r); running != 0 {
		s.Note = fmt.Sprintf("held, but pid %d runs: somebody continued it, and its sockets fail until netfreeze thaw %s", running, r.ThawTarget())
	}
	settling := r.Settling()
	if (r.Phase == record.Running || r.Phase == record.Committed) && !settling {
		s.State = "orphaned"
	}
	if r.Phase == record.Held && !alive {
		s.State = string(record.Ended)
	}
	ns, err := find(r)
	if errors.Is(err, netns.ErrGone) {
		return s, !alive && !settling, nil
	}
	if err != nil {
		return s, false, err
	}
	defer ns.Close()
	var left time.Duration
	err = lockedIfPossible(ns, func() (err error) { // what is half changed says nothing
		left, err = k.timeLeft(ns, r)
		return err
	})
	if err != nil {
		return s, false, err
	}
	s.Frozen, s.LeftSeconds = left > 0, left.Seconds()
	return s, !s.Frozen && !settling && !r.Undoable(), nil
}

// runningOf returns a task of a held tree that is not stopped, or 0.
func runningOf(r *record.Record) int {
	if r.Phase != record.Held {
		return 0
	}
	for _, p := range r.Tree {
		if st, err := proc.ReadStat(p.PID); err == nil && p.Alive() && st.State != 'T' && st.State != 't' {
			return p.PID
		}
	}
	return 0
}

// timeLeft asks the kernel how long the record's freeze lasts; 0 is thawed.
func (k *Keeper) timeLeft(ns *netns.Namespace, r *record.Record) (time.Duration, error) {
	if r.Scope == record.NetNS {
		st, err := k.filter.Look(ns)
		return st.Left, err
	}
	c, err := k.filter.OpenConns(ns, r.Backend, r.Owner)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_, left, err := c.Frozen()
	return left, err
}
