package hooks

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/config"
	"github.com/criu-netfreeze/criu-netfreeze/proc"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
	"github.com/criu-netfreeze/criu-netfreeze/state"
	"github.com/criu-netfreeze/criu-netfreeze/tcp"
)

// succeeded reports whether CRIU has finished a dump with success.
func (t *transaction) succeeded() bool {
	return t.rec.Op == state.Dump && t.rec.Phase == state.Committed && t.stats.written()
}

// settle ends the transaction: CRIU has ended, or has said that it succeeded.
func (t *transaction) settle() error {
	var err error
	switch {
	case t.rec.Op == state.Restore:
		err = t.settleRestore()
	case t.succeeded():
		err = t.keep()
	default:
		err = t.undo()
	}
	if err != nil {
		t.log.Error(oneLine(fmt.Errorf("settle the %s of %s: %w", t.rec.Op, subject(t.rec), err)))
	}
	return err
}

// undo takes everything back after a dump that failed: sockets out of repair
// mode (a CRIU that was killed leaves them in it), no rule, tasks running.
func (t *transaction) undo() error {
	tree, err := proc.OpenTree(t.rec.Tree[0])
	if errors.Is(err, proc.ErrGone) {
		err = nil
	}
	defer tree.Close()
	n, _, err2 := tcp.Restore(tree, t.rec.Reuse)
	err = errors.Join(err, err2, t.removeCRIULock(), t.thaw())
	if t.rec.Stopped {
		err = errors.Join(err, tree.Signal(unix.SIGCONT))
	}
	t.log.Warnf("the dump of %s did not succeed: everything was taken back (%d sockets were in repair mode)", subject(t.rec), n)
	if err != nil {
		return err // the record stays, so that netfreeze thaw finds what is left
	}
	return t.rec.Remove()
}

// keep applies the policy after a dump that succeeded.
func (t *transaction) keep() error {
	// In scope netns CRIU unlocks the network if the tasks are to go on and at
	// no other time. Without that it has killed them or keeps them stopped.
	released := t.unlocked || t.rec.Scope == state.Connections
	tree := proc.OpenRefs(t.rec.Tree)
	defer tree.Close()
	gone := ending(tree)
	switch policy := t.set.Policy; {
	case gone:
		return t.ended("CRIU ended the tasks")
	case !released:
		return t.held(tree, "CRIU left the tasks stopped")
	case policy == config.Run:
		return errors.Join(t.thaw(), t.rec.Remove())
	case policy == config.Isolate:
		t.rec.Phase = state.Isolated
		t.log.Infof("%s goes on without network: isolated until %s", subject(t.rec), clock(t.rec.Until))
		return t.rec.Save()
	case policy == config.Kill:
		if err := end(t.rec, tree); err != nil {
			return errors.Join(err, t.held(tree, "the tasks could not be ended"))
		}
		return t.ended("ended silently")
	default:
		return t.held(tree, "policy")
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

// ended records that only the freeze is left, which keeps the namespace from
// answering the peers with RST until a restore or the time to live ends it.
func (t *transaction) ended(how string) error {
	t.rec.Phase, t.rec.Stopped, t.rec.Note = state.Ended, false, how
	t.log.Infof("%s: %s; %s stays frozen until it is restored into, or %s", subject(t.rec), how, t.rec.NetNS, clock(t.rec.Until))
	return t.rec.Save()
}

// held records that the tasks are kept, with their sockets in repair mode: if
// somebody else ends them now, that is silent too.
func (t *transaction) held(tree proc.Tree, how string) error {
	reuse, err := tcp.Silence(tree)
	t.rec.Phase, t.rec.Stopped, t.rec.Reuse, t.rec.Note = state.Held, true, reuse, how
	t.log.Infof("%s is held: stopped, frozen until %s; netfreeze thaw or netfreeze kill %s ends that", subject(t.rec), clock(t.rec.Until), name(t.rec))
	return errors.Join(err, t.rec.Save())
}

func clock(t time.Time) string { return t.Format("15:04:05") }

// settleRestore ends a restore whose post-resume never came.
func (t *transaction) settleRestore() error {
	if t.thawed || t.ns == nil {
		return t.rec.Remove()
	}
	if t.set.RestoreFailure == config.Keep && !t.unlocked {
		t.rec.Phase, t.rec.Note = state.Frozen, "kept after a failed restore"
		t.log.Warnf("the restore did not succeed: %s stays frozen until %s (restore-failure = \"keep\"); netfreeze thaw %s ends that", t.ns, clock(t.rec.Until), name(t.rec))
		return t.rec.Save()
	}
	err := errors.Join(t.removeCRIULock(), t.thaw())
	if err != nil {
		return err
	}
	t.dropAdopted()
	t.log.Warnf("the restore did not succeed: %s is thawed", t.ns)
	return t.rec.Remove()
}

// removeCRIULock removes the lock that this transaction's CRIU left in the
// namespace when it was killed. It is not ours, but nobody else is left to
// take it away, and it cuts the container off as a freeze would. In scope
// connections the namespace is not the tree's alone, so nothing is done there.
func (t *transaction) removeCRIULock() error {
	if t.ns == nil || t.rec.Scope != state.NetNS || t.criu.Alive() {
		return nil
	}
	isolated, err := t.isolate()
	if err == nil {
		err = rules.RemoveCRIULocks(isolated, t.rec.ForeignLocks)
	}
	if err != nil {
		return fmt.Errorf("remove the network lock of a CRIU that was killed: %w", err)
	}
	return nil
}
