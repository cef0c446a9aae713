// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// synMargin is how much longer than the drain new SYNs are held back: until
// CRIU has seized the tasks and the network lock takes over. The kernel ends
// it by itself.
const synMargin = 5 * time.Second

// preDump is CRIU's first action: the tasks still run. All that may fail is
// done here, since an error now ends the dump before a task is touched.
func preDump(env *Env, req action.Request) (*Dump, error) {
	// Nobody who is not CRIU gets this far: a script whose CRIU was killed before it
	// asked for its parent has another process above it, for which nothing would ever
	// be settled.
	if err := checkCaller(req, env.CRIU.Ref); err != nil {
		return nil, err
	}
	root, err := openRoot(req)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	c, err := begin(env, record.Dump, findContainer(env))
	if err != nil {
		return nil, err
	}
	d := newDump(c)
	if err := d.prepare(root); err != nil {
		d.Close()
		return nil, fmt.Errorf("cannot freeze the network of pid %d: %w", root.PID, err)
	}
	r := d.record()
	env.Log.WithField("backend", r.Backend).Infof("pre-dump: ready to freeze %s of %s, scope %s, policy %s by %s",
		r.NetNS, r.Describe(), r.Scope, r.Policy, r.Why)
	return d, nil
}

// preDumpAgain is pre-dump for the second time: the script runs twice where CRIU
// read its configuration twice.
func (d *Dump) preDumpAgain(req action.Request) error {
	root, err := openRoot(req)
	if err != nil {
		return err
	}
	defer root.Close()
	if d.now <= dumpFrozen && d.record().Tree[0] == root.Ref {
		return nil
	}
	return d.foreign(req)
}

// prepare puts everything in place but the freeze itself, and takes all of it back
// if something fails.
func (d *Dump) prepare(root *proc.Process) error {
	ns, err := netns.OpenProcess(root)
	if err != nil {
		return err
	}
	d.record().Tree = []proc.Ref{root.Ref}
	if err := d.freeze.Open(ns); err != nil {
		_ = ns.Close()
		return err
	}
	if err := d.lookAtTree(); err != nil {
		return err
	}
	d.record().Quiet = d.set.Quiet == config.AutoQuiet
	// The record comes first: whoever finds rules must find out whose they are.
	if err := d.freeze.Save(); err != nil {
		return err
	}
	if d.record().Scope == record.NetNS {
		err = d.prepareNetNS()
	} else {
		err = d.freezeConnections()
	}
	if err != nil {
		err = errors.Join(err, d.freeze.Forget())
		d.openWindows()
		return err
	}
	return nil
}

// lookAtTree refuses a tree that a former dump has left held: with its sockets in
// repair mode it cannot be dumped, and what became of this dump would end the hold.
// It also notes which tasks are stopped already: these stay so.
func (d *Dump) lookAtTree() error {
	r := d.record()
	tree, err := proc.OpenTree(r.Tree[0])
	if err != nil {
		return fmt.Errorf("find the tasks: %w", err)
	}
	defer tree.Close()
	records, err := record.Of(d.freeze.NetNS())
	if err != nil {
		return err
	}
	for _, other := range records {
		if other.ID != r.ID && other.Stopped && slices.ContainsFunc(tree.Refs(), func(p proc.Ref) bool { return slices.Contains(other.Tree, p) }) {
			return code.New(code.AlreadyHeld, fmt.Sprintf("%s: end that first, with netfreeze thaw %s, then dump again; nothing was changed", other.DescribeHold(), other.ThawTarget()))
		}
	}
	r.StoppedBefore, err = tree.Stopped()
	return err
}

// prepareNetNS puts the unarmed rules in place, lets pending handshakes drain, and has
// the peers stop sending.
func (d *Dump) prepareNetNS() error {
	hold := time.Duration(0)
	if d.set.Drain > 0 {
		hold = d.set.Drain + synMargin
	}
	look := beside(d.freeze.Sockets)
	err := d.freeze.Prepare(hold)
	socks, err2 := look() // it uses the namespace, which may have to be closed
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	if tcp.Pending(socks) > 0 { // what is accepted meanwhile becomes quiet, too
		if socks, err = d.drain(); err == nil {
			d.quieten(socks)
		}
		return err
	}
	// Nothing is to be expected of the drain, which must look once more all the same: CRIU
	// need not wait for one after the other.
	drained := beside(d.drain)
	d.quieten(socks)
	_, err = drained()
	return err
}

// drain waits, at most as long as configured, until the application has
// accepted the connections that wait for it. New ones are held back meanwhile:
// their first SYN is dropped and comes again after the freeze. It returns the namespace's
// sockets, as they are then.
func (d *Dump) drain() ([]tcp.Socket, error) {
	const step = 2 * time.Millisecond
	deadline := time.Now().Add(d.set.Drain)
	for {
		socks, err := d.freeze.Sockets()
		if err != nil {
			return nil, err
		}
		pending := tcp.Pending(socks)
		if pending == 0 {
			return socks, nil
		}
		if !time.Now().Before(deadline) {
			d.env.Log.Warn(code.New(code.Handshakes, fmt.Sprintf("%d handshakes are still pending after %v; CRIU fails on them unless skip-in-flight is set (drain in netfreeze.toml sets the time)", pending, d.set.Drain)))
			return socks, nil
		}
		time.Sleep(step)
	}
}

// freezeConnections has the peers of the tree's own connections stop sending, and freezes
// these connections.
func (d *Dump) freezeConnections() error {
	if d.record().Quiet {
		socks, err := d.freeze.Sockets()
		if err != nil {
			return err
		}
		d.quieten(socks)
	}
	if err := d.armTree(); err != nil {
		return err
	}
	d.to(dumpFrozen)
	return nil
}

// armTree freezes the tree's own connections, as the tree is now.
func (d *Dump) armTree() error {
	tree, err := proc.OpenTree(d.record().Tree[0])
	if err != nil {
		return fmt.Errorf("find the tasks: %w", err)
	}
	defer tree.Close()
	return d.freeze.ArmTree(tree)
}
