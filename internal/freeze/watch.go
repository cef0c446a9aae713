// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"os"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// Watch is what changes a hold, or what is left of one, without a command.
type Watch struct {
	ThenKill time.Duration // how long a hold lasts at most; 0 is for ever
	Sigterm  bool          // a SIGTERM that the root task gets ends a hold
	// Newcomers thaws a namespace that waits for a restore when another container
	// starts in it; else that is only said.
	Newcomers bool
	Answers   *Answering // what is answered meanwhile; nil is nothing
}

// The intervals at which it is looked: a hold, and a namespace for newcomers, for which
// all processes have to be looked at.
const (
	watchInterval    = 200 * time.Millisecond
	newcomerInterval = time.Second
)

// Watch looks after the hold, the isolation whose peers are answered, or the freeze that
// waits for a restore, that the record called id stands for, until somebody ends that, or
// it ends it itself.
func (k *Keeper) Watch(id string, w Watch, log *logrus.Logger) {
	h := holdWatch{Watch: w, keeper: k, log: log, began: time.Now(), first: true}
	a := k.answerer(w.Answers, log)
	defer a.stop()
	var n *newcomers
	for {
		r, err := record.Load(id)
		switch {
		case errors.Is(err, os.ErrNotExist):
			a.resume()
			return
		case err != nil: // it is being written, or damaged, and then nobody knows what to end
			time.Sleep(watchInterval)
		case r.Phase == record.Held && len(r.Tree) > 0 && r.Tree[0].Alive():
			a.look(r)
			h.look(r)
			time.Sleep(watchInterval)
		case r.Phase == record.Isolated && a != nil && r.Alive():
			a.look(r)
			if r.Expired() && a.resume() {
				return
			}
			time.Sleep(watchInterval)
		case r.Phase == record.Ended && r.Scope == record.NetNS && r.Waits():
			if lost(r) {
				_ = k.discard(r) // another namespace may have its inode by now
				return
			}
			a.look(r)
			if n == nil {
				n = lookForNewcomers(r.NetNS)
			}
			if k.meet(n, r, w.Newcomers, log) {
				return
			}
			time.Sleep(newcomerInterval)
		default:
			return
		}
	}
}

// holdWatch looks after one hold.
type holdWatch struct {
	Watch
	keeper  *Keeper
	log     *logrus.Logger
	began   time.Time
	first   bool
	pending bool // a SIGTERM was, when it was looked last
}

// look ends the hold if it is time. A stopped task never sees a SIGTERM, so whoever
// stops a container would wait for all of its grace period. A signal that was pending
// from the beginning does not count: the task blocks it.
func (h *holdWatch) look(r *record.Record) {
	pending := h.Sigterm && r.Tree[0].Pending(unix.SIGTERM)
	why := ""
	switch {
	case pending && !h.pending && !h.first:
		why = "it got a SIGTERM (hold-sigterm = \"wait\" leaves it held)"
	case h.ThenKill > 0 && time.Since(h.began) >= h.ThenKill:
		why = "nobody has thawed it (hold-then-kill)"
	}
	h.first = false
	if why == "" {
		h.pending = pending
		return
	}
	if err := h.keeper.Kill(r); err != nil { // once more, next time
		h.log.Errorf("end the held tree of %s: %v", r.Describe(), code.Any(err))
		return
	}
	h.log.Infof("%s was held and is ended without a packet: %s", r.Describe(), why)
}
