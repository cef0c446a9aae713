package hooks

import (
	"errors"
	"fmt"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
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
func (s *settler) preDump(a request) error {
	root, err := a.root()
	if err != nil {
		return err
	}
	defer root.Close()
	if s.tx != nil {
		if len(s.tx.rec.Tree) > 0 && s.tx.rec.Tree[0] == root.Ref && s.tx.rec.Phase == record.Running {
			return nil // the script runs twice where CRIU read its configuration twice
		}
		return errors.New("this CRIU has a transaction under way already; nothing was changed")
	}
	c, err := container.Runtime(s.criu.PID)
	if err != nil {
		s.log.Warnf("the container is not known by name, only the general settings apply: %s", oneLine(err))
	}
	t, err := s.begin(record.Dump, c)
	if err != nil {
		return err
	}
	if err := t.prepareDump(root); err != nil {
		t.close()
		return fmt.Errorf("cannot freeze the network of pid %d: %w", root.PID, err)
	}
	s.tx = t
	s.log.WithField("backend", t.rec.Backend).Infof("pre-dump: ready to freeze %s of %s, scope %s, policy %s by %s",
		t.rec.NetNS, subject(t.rec), t.rec.Scope, t.rec.Policy, t.rec.Why)
	return nil
}

// subject names what is dumped, for messages.
func subject(r *record.Record) string {
	if r.Container != "" {
		return "container " + r.Container
	}
	if len(r.Tree) > 0 {
		return fmt.Sprintf("pid %d", r.Tree[0].PID)
	}
	return "the tree"
}

// prepareDump puts everything in place but the freeze itself, and takes all of
// it back if something fails.
func (t *transaction) prepareDump(root *proc.Process) error {
	ns, err := netns.OpenPID(root.PID, root.Start)
	if err != nil {
		return err
	}
	t.rec.Tree = []proc.Ref{root.Ref}
	t.rec.Until = time.Now().Add(t.set.TTL)
	if err := t.use(ns); err != nil {
		_ = ns.Close()
		return err
	}
	// The record comes first: whoever finds rules must find out whose they are.
	if err := t.rec.Save(); err != nil {
		return err
	}
	if t.rec.Scope == record.NetNS {
		err = t.prepareWhole()
	} else {
		err = t.armTree()
	}
	if err != nil {
		return errors.Join(err, t.forget())
	}
	return nil
}

// prepareWhole puts the unarmed rules in place and lets pending handshakes drain.
func (t *transaction) prepareWhole() error {
	unlock, err := record.LockNetNS(t.ns)
	if err != nil {
		return err
	}
	hold := time.Duration(0)
	if t.set.Drain > 0 {
		hold = min(t.set.Drain+synMargin, t.set.TTL)
	}
	err = t.whole.Prepare(hold)
	unlock()
	if err != nil {
		return fmt.Errorf("put the rules in place: %w", err)
	}
	return t.drain()
}

// drain waits, at most as long as configured, until the application has
// accepted the connections that wait for it. New ones are held back meanwhile:
// their first SYN is dropped and comes again after the freeze.
func (t *transaction) drain() error {
	const step = 2 * time.Millisecond
	deadline := time.Now().Add(t.set.Drain)
	for {
		socks, err := t.sockets()
		if err != nil {
			return err
		}
		pending := tcp.Pending(socks)
		if pending == 0 {
			return nil
		}
		if !time.Now().Before(deadline) {
			t.log.Warnf("%d handshakes are still pending after %v; CRIU fails on them unless skip-in-flight is set (drain in netfreeze.toml sets the time)", pending, t.set.Drain)
			return nil
		}
		time.Sleep(step)
	}
}

// sockets lists the TCP sockets of the transaction's namespace.
func (t *transaction) sockets() (socks []tcp.Socket, err error) {
	err = t.ns.Do(func() (err error) {
		socks, err = tcp.List()
		return err
	})
	return socks, err
}

// networkLock arms the freeze: CRIU has seized the tasks, so none of them sees
// a failing system call. It happens only if the tree's netns is not CRIU's own.
func (t *transaction) networkLock() error {
	if t.rec.Scope != record.NetNS {
		return nil
	}
	if err := t.arm(); err != nil {
		return fmt.Errorf("%w (the tasks go on as they were)", err)
	}
	return nil
}

// armTree is armConnections for the tree as it is now.
func (t *transaction) armTree() error {
	tree, err := proc.OpenTree(t.rec.Tree[0])
	if err != nil {
		return fmt.Errorf("find the tasks: %w", err)
	}
	defer tree.Close()
	return t.armConnections(tree)
}

// armConnections freezes the tree's own connections; those that were there
// before stay frozen. CRIU calls no network-lock in this scope. The tasks'
// descriptors are looked at only if some process has a connection that is not
// frozen yet, since that takes longer than all the rest.
func (t *transaction) armConnections(tree proc.Tree) error {
	socks, err := t.sockets()
	if err != nil {
		return err
	}
	conns := tcp.Connections(socks)
	if len(without(conns, t.rec.Conns)) > 0 {
		inodes, err := tcp.Inodes(tree)
		if err != nil {
			return fmt.Errorf("find the tasks' sockets: %w", err)
		}
		conns = tcp.Owned(socks, inodes)
	}
	t.rec.Conns = conns
	return t.arm()
}

// stops reports whether the policy keeps the tasks from going on.
func stops(p config.Policy) bool { return p == config.Hold || p == config.Kill }
