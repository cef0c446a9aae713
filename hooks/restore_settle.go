// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// Settle implements Transaction: post-resume never came, so the restore has failed.
func (r *Restore) Settle() error {
	return r.settle(r.settleOnce, func() bool { return false })
}

func (r *Restore) settleOnce() error {
	err := r.giveUp()
	if err == nil {
		r.to(restoreSettled)
	}
	return err
}

// giveUp thaws after a restore that failed, or keeps the freeze where the
// configuration says so.
func (r *Restore) giveUp() error {
	rec, ns := r.record(), r.freeze.NetNS()
	if err := r.freeze.CountRestore(false); err != nil {
		return err
	}
	if ns == nil || r.freeze.Lifted() {
		return r.freeze.Forget()
	}
	if r.set.RestoreFailure == config.Keep && r.now != restoreUnlocked {
		rec.Phase, rec.Note = record.Frozen, "kept after a failed restore"
		r.takeOver() // this record stands for theirs now
		r.env.Log.Warn(code.New(code.RestoreFailed, fmt.Sprintf("the restore did not succeed: %s stays frozen until %s (restore-failure = \"keep\"); netfreeze thaw %s ends that", ns, clock(rec.Ends()), rec.ThawTarget())))
		return r.freeze.Save()
	}
	if err := errors.Join(r.freeze.RemoveCRIULock(), r.freeze.Thaw()); err != nil {
		return err
	}
	if r.freeze.Lifted() {
		r.takeOver()
		r.env.Log.Warn(code.New(code.RestoreFailed, fmt.Sprintf("the restore did not succeed: %s is thawed", ns)))
	}
	return r.freeze.Forget()
}
