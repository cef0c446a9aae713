package hooks

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/config"
	"github.com/criu-netfreeze/criu-netfreeze/proc"
	"github.com/criu-netfreeze/criu-netfreeze/state"
)

// postDump commits: the images are complete. Where the policy says so the
// tasks, which CRIU still holds, get a SIGSTOP, so that they stop before they
// run another instruction once CRIU lets go of them.
func (t *transaction) postDump(a action) error {
	if t.rec.Phase == state.Committed {
		return nil
	}
	dir, err := a.images(t.criu.Ref)
	if err != nil {
		return err
	}
	tree, err := proc.OpenTree(t.rec.Tree[0])
	if err != nil {
		return fmt.Errorf("find the tasks: %w", err)
	}
	defer tree.Close()
	switch {
	case t.rec.Scope == state.NetNS && t.armed.IsZero():
		err = t.arm() // the settler that did was killed, or network-lock was not for us
	case t.rec.Scope == state.Connections && t.set.Policy != config.Run:
		err = t.armConnections() // with those made since pre-dump: now nothing moves any more
	}
	if err != nil {
		return err
	}
	if t.stats, err = watchStats(t.criu.Ref); err != nil {
		return err
	}
	if t.images, err = os.Open(dir); err != nil {
		return fmt.Errorf("open the image directory: %w", err)
	}
	t.rec.Tree = tree.Refs()
	t.rec.Phase = state.Committed
	if stops(t.set.Policy) {
		t.rec.Stopped = true
	}
	if err := t.rec.Save(); err != nil {
		return err
	}
	if !t.rec.Stopped {
		return nil
	}
	if err := tree.Signal(unix.SIGSTOP); err != nil {
		return errors.Join(fmt.Errorf("stop the tasks: %w", err), tree.Signal(unix.SIGCONT))
	}
	return nil
}

// dumpUnlock is called when CRIU gives the network back: the dump has failed,
// or its caller wants the tasks to go on. CRIU ignores an error here.
func (t *transaction) dumpUnlock() error {
	t.unlocked = true
	if t.rec.Phase == state.Committed && t.set.Policy != config.Run {
		return nil // the settler decides, when it is known whether CRIU succeeded
	}
	return t.lift()
}
