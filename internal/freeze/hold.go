// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Hold keeps a stopped tree, with its sockets in repair mode, so that whoever ends
// it later does so silently. The record says so even if a socket could not be
// switched, which is an error. note says why the tree is held.
func (f *Freeze) Hold(tree proc.Tree, note string) error {
	reuse, err := tcp.EnterRepair(tree)
	r := f.Record
	r.Phase, r.Stopped, r.Reuse, r.Note = record.Held, true, reuse, note
	return errors.Join(err, f.Save())
}

// endTime bounds the wait for tasks to end after SIGKILL.
const endTime = 10 * time.Second

// End ends a stopped tree without a packet. The freeze stays.
func (f *Freeze) End(tree proc.Tree) error { return end(f.Record, tree.Refs()) }

// end ends stopped tasks without a packet: with the sockets in repair mode the
// kernel forgets them (tcp_close in net/ipv4/tcp.c) where it would send FIN or
// RST and keep them in FIN-WAIT-1 otherwise.
func end(r *record.Record, tasks []proc.Ref) error {
	if err := stubborn(func() error { return proc.EachLiving(tasks, tcp.ForceRepair) }); err != nil {
		return fmt.Errorf("switch the sockets of %s to repair mode: %w", r.Describe(), err)
	}
	err := proc.EachLiving(tasks, func(some proc.Tree) error { return some.Signal(unix.SIGKILL) })
	if err != nil {
		return fmt.Errorf("end the tasks of %s: %w", r.Describe(), err)
	}
	deadline := time.Now().Add(endTime)
	return proc.EachLiving(tasks, func(some proc.Tree) error {
		if left := some.Ended(time.Until(deadline)); len(left) > 0 {
			return code.New(code.StillStopped, fmt.Sprintf("%d tasks of %s have not ended %v after SIGKILL, pid %d among them (state D in ps?)", len(left), r.Describe(), endTime, left[0].PID))
		}
		return nil
	})
}

// stubborn tries again what fails, a few times: an error may pass, for want of memory
// or of a descriptor, say.
func stubborn(do func() error) (err error) {
	for try := range 5 {
		time.Sleep(time.Duration(try) * 10 * time.Millisecond)
		if err = do(); err == nil {
			return nil
		}
	}
	return err
}

// settling is how long a command waits for a transaction that is under way: one
// that CRIU has just finished takes a moment to settle.
const settling = 5 * time.Second

// pollInterval is how often it looks.
const pollInterval = 20 * time.Millisecond

// Settled returns the record as it is once its transaction is over, or nil if
// there is nothing left of it then. It waits a moment for that, also for a settler
// that has applied the policy and is about to add to the record; a transaction
// that takes longer is an error, since nobody else may interfere with it.
func Settled(r *record.Record) (*record.Record, error) {
	if r.Phase != record.Running && r.Phase != record.Committed && !r.Busy() {
		return r, nil
	}
	for deadline := time.Now().Add(settling); r.Busy(); time.Sleep(pollInterval) {
		if time.Now().After(deadline) {
			return nil, code.New(code.OtherTransaction, fmt.Sprintf("a %s of %s is under way (CRIU is pid %d): wait until it has ended", r.Op, r.Describe(), r.CRIU.PID))
		}
	}
	now, err := record.Load(r.ID)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return now, err
}

// take locks the records against other commands and looks at them anew.
func take(records []*record.Record) (release func(), err error) {
	var locks []func()
	release = func() {
		for _, unlock := range locks {
			unlock()
		}
	}
	for _, r := range records {
		l, err := record.Acquire(r.ID)
		switch {
		case record.NoFile(err): // see lockedIfPossible
		case err != nil:
			release()
			return nil, err
		default:
			locks = append(locks, func() { record.Release(r.ID, l) })
		}
		now, err := record.Load(r.ID)
		if err != nil {
			release()
			return nil, fmt.Errorf("%s has changed meanwhile: %w", r.Describe(), err)
		}
		*r = *now
	}
	return release, nil
}

// Kill ends held trees silently. The freeze stays, as with policy kill. A
// record of anything but a hold is an error, and nothing is changed then. The
// records are settled, see Settled.
func (k *Keeper) Kill(records ...*record.Record) error {
	unlock, err := take(records)
	if err != nil {
		return err
	}
	defer unlock()
	for _, r := range records {
		if r.Phase != record.Ended && r.Phase != record.Held && !r.Stopped {
			return code.New(code.Target, fmt.Sprintf("%s: only a held tree can be ended silently; nothing was changed", r.DescribeHold()))
		}
	}
	for _, r := range records {
		if err := end(r, r.Tree); err != nil {
			return err
		}
		r.Phase, r.Stopped, r.Note = record.Ended, false, "ended silently"
		if err := saveByHand(r); err != nil {
			return err
		}
	}
	return nil
}
