// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// networkUnlock thaws: all sockets are rebuilt and still in repair mode, the
// tasks have not been resumed, so the window probes that CRIU is about to
// cause get out.
func (r *Restore) networkUnlock() error {
	if err := r.check(action.NetworkUnlock, restoreUnlocked); err != nil {
		return err
	}
	r.to(restoreUnlocked)
	if err := r.freeze.CountRestore(true); err != nil {
		r.env.Log.Warn(code.Any(err))
	}
	if r.record().Scope == record.Connections {
		return nil // post-resume thaws these
	}
	return r.release(r.freeze.Lift)
}

// release thaws, by lift or by thaw, forgets the freezes that were taken over,
// and gets traffic going.
func (r *Restore) release(thaw func() error) error {
	if r.freeze.NetNS() != nil {
		r.watchTraffic()
	}
	if err := thaw(); err != nil {
		return err
	}
	if r.freeze.NetNS() == nil {
		return nil // CRIU made no namespace
	}
	r.takeOver()
	if r.freeze.Lifted() {
		r.startNudge()
	} else {
		r.nudgeLater()
	}
	return nil
}

// takeOver forgets the freezes that this restore has taken the place of.
func (r *Restore) takeOver() {
	if err := r.freeze.TakeOver(); err != nil {
		r.env.Log.Warn(code.Any(err))
	}
}
