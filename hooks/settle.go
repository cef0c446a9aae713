package hooks

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// succeeded reports whether CRIU has finished a dump with success.
func (t *transaction) succeeded() bool {
	return t.rec.Op == record.Dump && t.rec.Phase == record.Committed && t.stats.written()
}

// tryAgain is how long the settler waits after a settlement that failed, before
// the next attempt: another program may hold iptables' lock, say.
const tryAgain = time.Second

// settle ends the transaction: CRIU has ended, or has said that it succeeded.
// What cannot be taken back now is tried again until the kernel has done it.
func (t *transaction) settle() error {
	for {
		err := t.settleOnce()
		if err == nil {
			return nil
		}
		t.log.Error(oneLine(fmt.Errorf("settle the %s of %s: %w", t.rec.Op, subject(t.rec), err)))
		if t.rec.Phase == record.Held || time.Now().After(t.rec.Until) {
			return err
		}
		time.Sleep(tryAgain)
	}
}

func (t *transaction) settleOnce() error {
	switch {
	case t.rec.Op == record.Restore:
		return t.settleRestore()
	case t.rec.Phase == record.Ended, t.rec.Phase == record.Isolated:
		return t.rec.Save() // all is done but for that
	case t.succeeded():
		return t.keep()
	}
	return t.undo()
}

// undo takes everything back after a dump that failed: sockets out of repair
// mode (a CRIU that was killed leaves them in it), no rule, tasks running. The
// record stays if that fails, so that netfreeze thaw finds what is left.
func (t *transaction) undo() error {
	tree, err := proc.OpenTree(t.rec.Tree[0])
	if err != nil {
		tree = proc.OpenRefs(t.rec.Tree) // gone, or what is known of it
	}
	defer tree.Close()
	n, _, err := tcp.Restore(tree, tcp.Reuse(t.rec.Reuse))
	err = errors.Join(err, t.removeCRIULock(), t.thaw())
	if t.rec.Stopped {
		err = errors.Join(err, tree.Signal(unix.SIGCONT))
	}
	if err != nil {
		return err
	}
	t.log.Warnf("the dump of %s did not succeed: everything was taken back (%d sockets were in repair mode)", subject(t.rec), n)
	return t.rec.Remove()
}

// keep applies the policy after a dump that succeeded.
func (t *transaction) keep() error {
	tree := proc.OpenRefs(t.rec.Tree)
	defer tree.Close()
	if ending(tree) {
		return t.ended("CRIU ended the tasks")
	}
	switch t.set.Policy {
	case config.Run:
		return errors.Join(t.leaveRepair(tree), t.forget())
	case config.Isolate:
		if err := t.leaveRepair(tree); err != nil {
			return err
		}
		t.rec.Phase = record.Isolated
		t.log.Infof("%s goes on without network: isolated until %s", subject(t.rec), clock(t.rec.Until))
		return t.saveAndLearn()
	case config.Kill:
		if err := end(t.rec, tree); err != nil {
			return errors.Join(err, t.held(tree, "the tasks could not be ended"))
		}
		return t.ended("ended silently")
	default:
		return t.held(tree, "policy")
	}
}

// leaveRepair takes the sockets of tasks that CRIU keeps stopped (--leave-stopped)
// out of repair mode: CRIU does that only where it lets tasks go on.
func (t *transaction) leaveRepair(tree proc.Tree) error {
	if t.unlocked || t.rec.Scope == record.Connections {
		return nil
	}
	_, _, err := tcp.Restore(tree, nil)
	return err
}

// saveAndLearn saves the record of what the policy has made of the dump, and
// then, since that takes longer, reads the images: a sibling in the pod that gets
// its network back leaves the connections in them silent. The peers are told,
// see acknowledge. Nothing depends on the second part.
func (t *transaction) saveAndLearn() error {
	err := t.rec.Save()
	if err != nil || t.images == nil {
		return err
	}
	cp, err := criuimg.Read(fmt.Sprintf("/proc/self/fd/%d", t.images.Fd()))
	if err != nil {
		t.log.Debug(oneLine(err))
		return nil
	}
	if t.rec.Scope == record.NetNS {
		t.rec.Conns = cp.Conns
		if err := t.rec.Save(); err != nil {
			t.log.Warn(oneLine(err))
		}
	}
	if err := t.acknowledge(cp); err != nil {
		t.log.Debug(oneLine(err))
	}
	return nil
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

// ended records that only the freeze is left, which keeps the namespace from
// answering the peers with RST until a restore or the time to live ends it.
func (t *transaction) ended(how string) error {
	t.rec.Phase, t.rec.Stopped, t.rec.Note = record.Ended, false, how
	t.log.Infof("%s: %s; %s stays frozen until it is restored into, or %s", subject(t.rec), how, t.rec.NetNS, clock(t.rec.Until))
	return t.saveAndLearn()
}

// held records that the tasks are kept, with their sockets in repair mode: if
// somebody else ends them now, that is silent too.
func (t *transaction) held(tree proc.Tree, how string) error {
	reuse, err := tcp.Silence(tree)
	t.rec.Phase, t.rec.Stopped, t.rec.Reuse, t.rec.Note = record.Held, true, record.Reuse(reuse), how
	t.log.Infof("%s is held: stopped, frozen until %s; netfreeze thaw or netfreeze kill %s ends that", subject(t.rec), clock(t.rec.Until), name(t.rec))
	return errors.Join(err, t.saveAndLearn())
}

func clock(t time.Time) string { return t.Format("15:04:05") }

// settleRestore ends a restore whose post-resume never came.
func (t *transaction) settleRestore() error {
	if t.thawed || t.ns == nil {
		return t.rec.Remove()
	}
	if t.set.RestoreFailure == config.Keep && !t.unlocked {
		t.rec.Phase, t.rec.Note = record.Frozen, "kept after a failed restore"
		t.dropTaken() // this record stands for theirs now
		t.log.Warnf("the restore did not succeed: %s stays frozen until %s (restore-failure = \"keep\"); netfreeze thaw %s ends that", t.ns, clock(t.rec.Until), name(t.rec))
		return t.rec.Save()
	}
	if err := errors.Join(t.removeCRIULock(), t.thaw()); err != nil {
		return err
	}
	if t.thawed {
		t.dropTaken()
		t.log.Warnf("the restore did not succeed: %s is thawed", t.ns)
	}
	return t.rec.Remove()
}

// removeCRIULock removes the lock that this transaction's CRIU left in the
// namespace when it was killed. It is not ours, but nobody else is left to
// take it away, and it cuts the container off as a freeze would. In scope
// connections the namespace is not the tree's alone, so nothing is done there.
func (t *transaction) removeCRIULock() error {
	if t.ns == nil || t.rec.Scope != record.NetNS || t.criu.Alive() {
		return nil
	}
	isolated, err := t.isolate()
	if err == nil && t.alone() {
		err = rules.RemoveCRIULocks(isolated, t.rec.ForeignLocks)
	}
	if err != nil {
		return fmt.Errorf("remove the network lock of a CRIU that was killed: %w", err)
	}
	return nil
}

// alone reports whether no other transaction is at work in the namespace, whose
// CRIU might have a lock there.
func (t *transaction) alone() bool {
	records, err := record.Of(t.ns)
	return err == nil && !slices.ContainsFunc(records, func(r *record.Record) bool {
		return r.ID != t.rec.ID && r.Settling()
	})
}
