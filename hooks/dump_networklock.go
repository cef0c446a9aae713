// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// networkLock arms the freeze: CRIU has seized the tasks, so none of them sees
// a failing system call. It comes only if the tree's netns is not CRIU's own.
func (d *Dump) networkLock() error {
	if err := d.check(action.NetworkLock, dumpFrozen); err != nil {
		return err
	}
	if d.record().Scope != record.NetNS {
		return nil
	}
	if err := d.freeze.Arm(); err != nil {
		return fmt.Errorf("%w (the tasks go on as they were)", err)
	}
	d.to(dumpFrozen)
	d.env.Log.Debugf("network-lock: frozen %s", d.record().NetNS)
	if d.seized == nil { // the script may be listed twice
		d.seized = findSeized(d.record().Tree[0])
	}
	d.listen()
	return nil
}

// seizedTree is a tree that is being opened beside CRIU, which would have to wait for
// that in post-dump: with many processes for milliseconds, while the network is frozen.
// CRIU has seized all tasks before network-lock, so that none is added any more.
type seizedTree struct {
	done chan struct{} // closed once the rest is set
	tree proc.Tree
	err  error
}

func findSeized(root proc.Ref) *seizedTree {
	s := &seizedTree{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.tree, s.err = proc.OpenTree(root)
	}()
	return s
}

// close lets go of a tree that was not taken. It may be called on nil.
func (s *seizedTree) close() {
	if s != nil {
		<-s.done
		s.tree.Close()
	}
}

// takeTree returns the tree as CRIU has seized it, for the caller to close.
func (d *Dump) takeTree() (proc.Tree, error) {
	if s := d.seized; s != nil {
		d.seized = nil
		if <-s.done; s.err == nil {
			return s.tree, nil
		}
	}
	return proc.OpenTree(d.record().Tree[0])
}

// listen hears what the peers wait for, for acknowledge. Without it they may take
// longer to go on.
func (d *Dump) listen() {
	if d.set.Resume != config.Nudge || d.set.Policy == config.Run || d.listener != nil {
		return
	}
	var err error
	if d.listener, err = nudge.Listen(d.freeze.NetNS()); err != nil {
		d.env.Log.Debug(err)
	}
}
