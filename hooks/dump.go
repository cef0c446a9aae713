// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"os"
	"sync"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/quiet"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// dumpState is how far a dump has got.
type dumpState int

const (
	dumpPrepared  dumpState = iota // pre-dump is done; packets pass
	dumpFrozen                     // packets are dropped
	dumpCommitted                  // post-dump: the images are complete
	dumpReleased                   // network-unlock after that: CRIU lets the tasks go on
	dumpFailed                     // network-unlock before that: CRIU has given up
	dumpSettled
)

// String implements fmt.Stringer.
func (s dumpState) String() string {
	return [...]string{"prepared", "frozen", "committed", "released", "failed", "settled"}[s]
}

// dumpTransitions says what may follow what. CRIU may end at any time, so every
// state can be settled. CRIU calls no network-lock for a tree in its own
// namespace, which is frozen at pre-dump.
var dumpTransitions = map[dumpState][]dumpState{
	dumpPrepared:  {dumpFrozen, dumpFailed, dumpSettled},
	dumpFrozen:    {dumpCommitted, dumpFailed, dumpSettled},
	dumpCommitted: {dumpReleased, dumpSettled},
	dumpReleased:  {dumpSettled},
	dumpFailed:    {dumpSettled},
}

// Dump is the transaction of one dump.
type Dump struct {
	common
	machine[dumpState]

	stats      statsFile       // CRIU's last file, watched from the commit on
	images     *os.File        // the image directory, which outlives CRIU's path to it
	read       func() dumped   // reads the images once; nil before the commit, see holdImages
	seized     *seizedTree     // the tasks, looked for while CRIU dumps them; nil before network-lock, and once taken
	listener   *nudge.Listener // of a freeze after which acknowledge is called; otherwise nil
	quiet      *quiet.Peers    // nil where none was made quiet, or by another process
	opening    bool            // the peers are being told of their windows
	reopened   bool            // another process began this dump
	background sync.WaitGroup  // whatever runs beside CRIU

	decided   outcome   // what has become of the dump, once it is settled
	idleSince time.Time // since when CRIU has waited for another request, after the commit
}

func newDump(c common) *Dump {
	return &Dump{common: c, machine: machine[dumpState]{allowed: dumpTransitions}}
}

// reopenDump takes up the dump of a settler that was killed.
func reopenDump(c common) (_ *Dump, err error) {
	d := newDump(c)
	d.reopened = true
	if d.record().Phase == record.Committed {
		d.now = dumpCommitted
		if d.stats, err = watchStats(d.env.CRIU.Ref); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Do implements Transaction.
func (d *Dump) Do(req action.Request) error {
	switch req.Action {
	case action.PreDump:
		return d.preDumpAgain(req)
	case action.NetworkLock:
		return d.networkLock()
	case action.PostDump:
		return d.postDump(req)
	case action.NetworkUnlock:
		if req.Script == action.PostResumeScript {
			return nil // post-dump does it, where the scripts are listed one by one
		}
		return d.networkUnlock()
	}
	return d.foreign(req)
}

// Finished implements Transaction. A dump is settled when CRIU has ended.
func (d *Dump) Finished() bool { return false }

// Polls implements Transaction: a caller may keep CRIU for more requests.
func (d *Dump) Polls() bool { return d.record().Phase == record.Committed }

// Watch implements Transaction.
func (d *Dump) Watch() (w freeze.Watch, ok bool) {
	w = freeze.Watch{
		ThenKill: d.set.HoldThenKill, Sigterm: d.set.HoldSigterm == config.EndHeld,
		Newcomers: d.set.Restart == config.ThawRestart,
	}
	if d.record().Answer != 0 {
		w.Answers = d.answering()
	}
	phase := d.record().Phase
	return w, phase == record.Held || phase == record.Ended || phase == record.Isolated && w.Answers != nil
}

// Concluded implements Transaction.
func (d *Dump) Concluded() bool {
	if d.decided == undecided && d.env.CRIU.Alive() {
		d.decided = d.outcomeWhileAlive()
	}
	return d.decided != undecided
}

// Close implements Transaction. It waits until all that is to be sent was sent.
func (d *Dump) Close() {
	d.background.Wait()
	d.quiet.Close()
	_, _ = d.listener.Stop() // what it heard is not needed any more
	d.seized.close()
	d.freeze.Close()
	d.stats.close()
	if d.images != nil {
		_ = d.images.Close()
	}
}

// stops reports whether the policy keeps the tasks from going on.
func stops(p config.Policy) bool { return p == config.Hold || p == config.Kill }
