// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Settle implements Transaction: a dump that succeeded gets what the policy says,
// any other one is rolled back.
func (d *Dump) Settle() error {
	return d.settle(d.settleOnce, func() bool { return d.record().Phase == record.Held })
}

func (d *Dump) settleOnce() (err error) {
	if phase := d.record().Phase; phase == record.Ended || phase == record.Isolated {
		err = errors.Join(d.freeze.Save(), d.freeze.Seal()) // all is done but for that
	} else {
		err = d.decide()
	}
	if err == nil {
		d.to(dumpSettled)
	}
	return err
}

// decide does what the outcome of the dump asks for. It is decided once: what is
// tried again must not come to another result.
func (d *Dump) decide() error {
	tree, err := d.openTree()
	if err != nil {
		return err
	}
	defer tree.Close()
	if d.decided == undecided {
		d.decided = d.outcome(tree)
	}
	switch {
	case d.decided == undecided:
		return code.New(code.OtherTransaction, "CRIU is still at work")
	case d.decided == failed:
		return d.rollback(tree)
	case d.decided == ended || ending(tree):
		return d.ended(tree, "CRIU ended the tasks")
	}
	return d.applyPolicy(tree)
}

// openTree takes hold of the tasks as they are now, or, where the root has gone or
// the dump was committed, of those that the record knows.
func (d *Dump) openTree() (proc.Tree, error) {
	r := d.record()
	if r.Phase != record.Committed {
		if tree, err := proc.OpenTree(r.Tree[0]); err == nil {
			return tree, nil
		}
	}
	return proc.OpenLiving(r.Tree)
}

// rollback takes everything back after a dump that failed.
func (d *Dump) rollback(tree proc.Tree) error {
	nudges := !d.freeze.Lifted() && d.nudges(d.freeze.FrozenFor(), minRTO)
	n, streams, err := d.freeze.Rollback(tree)
	if err != nil {
		return err
	}
	d.env.Log.Warn(code.New(code.DumpFailed, fmt.Sprintf("the dump of %s did not succeed: everything was taken back (%d sockets were in repair mode)", d.record().Describe(), n)))
	if d.freeze.Lifted() {
		d.openWindows()
	}
	switch {
	case !nudges || !d.freeze.Lifted():
	case d.read != nil: // the images are complete
		d.nudgeByImages()
	default:
		d.nudge(streams)
	}
	return nil
}

// applyPolicy does what is to become of the tree after a dump that succeeded.
func (d *Dump) applyPolicy(tree proc.Tree) error {
	switch d.set.Policy {
	case config.Run:
		err := errors.Join(d.leaveRepair(tree), d.freeze.Forget())
		if d.freeze.Lifted() {
			d.openWindows()
		}
		return err
	case config.Isolate:
		return d.isolate(tree)
	case config.Kill:
		d.background.Wait() // with the tasks, the namespace may go, and the way to the peers
		if err := d.freeze.End(tree); err != nil {
			return errors.Join(err, d.hold(tree, "the tasks could not be ended"))
		}
		return d.ended(tree, "ended silently")
	default:
		return d.hold(tree, d.noteHold())
	}
}

// ending reports whether all tasks are gone or on their way out.
func ending(tree proc.Tree) bool {
	for _, p := range tree {
		if !p.Ending() {
			return false
		}
	}
	return true
}

// leaveRepair takes the sockets of tasks that CRIU keeps stopped (--leave-stopped)
// out of repair mode: CRIU does that only where it lets tasks go on.
func (d *Dump) leaveRepair(tree proc.Tree) error {
	if d.now == dumpReleased || d.record().Scope == record.Connections {
		return nil
	}
	_, _, err := tcp.LeaveRepair(tree, nil)
	return err
}

// isolate lets the tasks go on behind the frozen network.
func (d *Dump) isolate(tree proc.Tree) error {
	if err := d.leaveRepair(tree); err != nil {
		return err
	}
	r := d.record()
	r.Phase = record.Isolated
	d.renew()
	d.env.Log.Infof("%s goes on without network: isolated until %s", r.Describe(), clock(r.Ends()))
	return d.finish()
}

// ended records that only the freeze is left, which keeps the namespace from
// answering the peers with RST until a restore or the time to live ends it.
func (d *Dump) ended(tree proc.Tree, how string) error {
	r := d.record()
	r.Phase, r.Stopped, r.Note = record.Ended, false, how
	d.renew()
	defer tree.Ended(time.Second) // a namespace of their own goes with the tasks, and needs no record then
	d.env.Log.Infof("%s: %s; %s stays frozen until it is restored into, or %s", r.Describe(), how, r.NetNS, clock(r.Ends()))
	return d.finish()
}

// hold keeps the tasks, with their sockets in repair mode: if somebody else ends
// them now, that is silent too.
func (d *Dump) hold(tree proc.Tree, why string) error {
	err := d.freeze.Hold(tree, why)
	d.renew()
	r := d.record()
	d.env.Log.Infof("%s is held: stopped, frozen until %s; netfreeze thaw or netfreeze kill %s ends that", r.Describe(), clock(r.Ends()), r.ThawTarget())
	return errors.Join(err, d.finish())
}

// noteHold says why a tree is held, and when that ends.
func (d *Dump) noteHold() string {
	if d.set.HoldThenKill == 0 {
		return "policy"
	}
	return fmt.Sprintf("policy; it is ended without a packet at %s, unless somebody thaws it", clock(time.Now().Add(d.set.HoldThenKill)))
}

// renew counts the time to live from here, where the dump is complete. If that does
// not work the freeze lasts as long as it did: at least half of its time, see
// makeSureOfFreeze.
func (d *Dump) renew() {
	if err := d.freeze.Arm(); err != nil {
		d.env.Log.Warnf("the time to live was not renewed after the dump: %v", code.Any(err))
	}
}

// finish is what is left to do for tasks that stay behind the freeze, or have gone: the
// record is saved, and once the last packet with CRIU's mark is out, none passes. Answers
// to the peers have another mark.
func (d *Dump) finish() error {
	err := d.saveThenReadImages()
	d.allowAnswers()
	d.background.Wait()
	return errors.Join(err, d.freeze.Seal())
}

// saveThenReadImages saves the record of what the policy has made of the dump, and
// then, since that takes longer, reads the images: a sibling in the pod that gets
// its network back leaves the connections in them silent. Nothing depends on the second
// part.
func (d *Dump) saveThenReadImages() error {
	err := d.freeze.Save()
	if err != nil || d.read == nil {
		return err
	}
	got := d.read()
	if got.err != nil {
		d.env.Log.Warnf("the images could not be read after the dump, so peers may wait for their timers after the restore: %v", code.Wrap(code.Images, got.err))
	}
	if got.Checkpoint == nil {
		return nil
	}
	if d.record().Scope == record.NetNS {
		d.record().Conns = got.Conns
		if err := d.freeze.Save(); err != nil {
			d.env.Log.Warn(code.Any(err))
		}
	}
	return nil
}
