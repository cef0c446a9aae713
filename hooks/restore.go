// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"os"
	"sync"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
)

// restoreState is how far a restore has got.
type restoreState int

const (
	restoreWaiting  restoreState = iota // pre-restore is done; CRIU has yet to make the namespace
	restoreFrozen                       // the target namespace is frozen
	restoreUnlocked                     // network-unlock: the sockets exist
	restoreFinished                     // post-resume: the tasks run, everything is settled
	restoreSettled                      // CRIU ended without post-resume
)

// String implements fmt.Stringer.
func (s restoreState) String() string {
	return [...]string{"waiting for its namespace", "frozen", "unlocked", "finished", "settled"}[s]
}

// restoreTransitions says what may follow what. CRIU calls no
// post-setup-namespaces for a tree without namespaces of its own, and no
// network-unlock for one in CRIU's own network namespace.
var restoreTransitions = map[restoreState][]restoreState{
	restoreWaiting:  {restoreFrozen, restoreUnlocked, restoreFinished, restoreSettled},
	restoreFrozen:   {restoreUnlocked, restoreFinished, restoreSettled},
	restoreUnlocked: {restoreFinished, restoreSettled},
}

// Restore is the transaction of one restore.
type Restore struct {
	common
	machine[restoreState]

	images *criuimg.Checkpoint // nil if the former settler was killed
	held   *os.File            // their directory, which outlives CRIU's path to it
	nudger *nudger             // gets traffic going after the thaw; nil until it can be made again, if the former settler was killed

	background sync.WaitGroup // whatever runs beside CRIU
	watching   bool           // for the first bytes, see watchTraffic
}

func newRestore(c common) *Restore {
	return &Restore{common: c, machine: machine[restoreState]{allowed: restoreTransitions}}
}

// reopenRestore takes up the restore of a settler that was killed.
func reopenRestore(c common) *Restore {
	r := newRestore(c)
	if r.freeze.NetNS() != nil {
		r.now = restoreFrozen
	}
	return r
}

// Do implements Transaction.
func (r *Restore) Do(req action.Request) error {
	first := req.Action == action.PreDump || req.Action == action.PreRestore
	if r.now == restoreFinished && !first {
		return nil // a script that is listed twice
	}
	r.reviveNudger()
	switch req.Action {
	case action.PreRestore:
		if r.now <= restoreFrozen {
			return nil // the script runs twice where CRIU read its configuration twice
		}
	case action.PostSetupNS:
		return r.postSetupNS(req)
	case action.NetworkUnlock:
		if req.Script == action.PostDumpScript {
			return nil // post-resume does it, where the scripts are listed one by one
		}
		return r.networkUnlock()
	case action.PostResume:
		return r.postResume()
	}
	return r.foreign(req)
}

// Finished implements Transaction: CRIU may stay for as long as the tasks run
// (restore without -d), so nobody waits for its end.
func (r *Restore) Finished() bool { return r.now == restoreFinished }

// Polls implements Transaction.
func (r *Restore) Polls() bool { return false }

// Concluded implements Transaction.
func (r *Restore) Concluded() bool { return false }

// Watch implements Transaction.
func (r *Restore) Watch() (w freeze.Watch, ok bool) { return w, false }

// Close implements Transaction. It waits until all that is to be sent was sent.
func (r *Restore) Close() {
	r.nudger.close()
	r.background.Wait()
	r.freeze.Close()
	if r.held != nil {
		_ = r.held.Close()
	}
}
