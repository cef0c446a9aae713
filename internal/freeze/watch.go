// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"os"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// Watch is what ends a hold by itself, without a packet.
type Watch struct {
	ThenKill time.Duration // how long the hold lasts at most; 0 is for ever
	Sigterm  bool          // a SIGTERM that its root task gets ends it
}

// watchInterval is how often a hold is looked at.
const watchInterval = 200 * time.Millisecond

// Watch looks after the hold that the record called id stands for, until somebody ends
// it, or it ends it itself. A stopped task never sees a SIGTERM, so whoever stops a
// container would wait for all of its grace period. A signal that was pending before
// does not count: the task blocks it.
func (k *Keeper) Watch(id string, w Watch, log *logrus.Logger) {
	began, pending := time.Now(), true
	for first := true; ; first = false {
		r, err := record.Load(id)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return
		case err != nil: // it is being written, or damaged, and then nobody knows what to end
			time.Sleep(watchInterval)
			continue
		case r.Phase != record.Held || len(r.Tree) == 0 || !r.Tree[0].Alive():
			return
		}
		before := pending
		pending = w.Sigterm && r.Tree[0].Pending(unix.SIGTERM)
		why := ""
		switch {
		case pending && !before && !first:
			why = "it got a SIGTERM (hold-sigterm = \"wait\" leaves it held)"
		case w.ThenKill > 0 && time.Since(began) >= w.ThenKill:
			why = "nobody has thawed it (hold-then-kill)"
		}
		if why != "" {
			err := k.Kill(r)
			if err == nil {
				log.Infof("%s was held and is ended without a packet: %s", r.Describe(), why)
				return
			}
			log.Errorf("end the held tree of %s: %v", r.Describe(), err)
			pending = false // once more
		}
		time.Sleep(watchInterval)
	}
}
