package hooks

import (
	"errors"
	"fmt"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// preRestore is a restore's first action. Nothing has been restored yet: an
// error now costs nothing. Once it is done the namespace answers no peer.
func (s *settler) preRestore(a request) error {
	if s.tx != nil {
		if s.tx.rec.Op == record.Restore && s.tx.rec.Phase == record.Running {
			return nil // the script runs twice where CRIU read its configuration twice
		}
		return errors.New("this CRIU has a transaction under way already; nothing was changed")
	}
	dir, err := a.images(s.criu.Ref)
	if err != nil {
		return err
	}
	cp, err := criuimg.Read(dir)
	if err != nil {
		return fmt.Errorf("%w; nothing was changed", err)
	}
	c, err := container.Runtime(s.criu.PID)
	if err != nil {
		s.log.Warnf("the container is not known by name, only the general settings apply: %s", oneLine(err))
	}
	t, err := s.begin(record.Restore, c)
	if err != nil {
		return err
	}
	t.rec.Conns = cp.Conns
	t.rec.Addressed = cp.NetNS == criuimg.External
	if err := t.prepareRestore(cp, c); err != nil {
		t.close()
		return fmt.Errorf("cannot prepare the restore: %w", err)
	}
	t.startResume(cp)
	t.greet()
	s.tx = t
	return nil
}

// prepareRestore freezes the target, where it exists already, and clears the
// way for the connections that come. It takes its freeze back if that fails.
func (t *transaction) prepareRestore(cp *criuimg.Checkpoint, c *container.Container) error {
	ns, where, err := findTarget(t.criu.Ref, cp, c)
	if err != nil {
		return err
	}
	t.rec.Until = time.Now().Add(t.set.TTL)
	if ns == nil {
		t.log.Infof("pre-restore: the network namespace is not known yet (%s): it will be frozen at post-setup-namespaces", where)
		return t.rec.Save()
	}
	if err := t.use(ns); err != nil {
		_ = ns.Close()
		return fmt.Errorf("%w (the target namespace was found through %s)", err, where)
	}
	if err := t.checkTarget(); err != nil {
		return err
	}
	if err := t.freezeTarget(); err != nil {
		return err
	}
	t.log.WithField("backend", t.rec.Backend).Infof("pre-restore: frozen %s, found through %s, scope %s, %d connections to come",
		t.rec.NetNS, where, t.rec.Scope, len(t.rec.Conns))
	return nil
}

// freezeTarget freezes t.ns, or takes over the freeze that is there, and then
// removes what is left of the connections there.
func (t *transaction) freezeTarget() error {
	if err := t.rec.Save(); err != nil {
		return err
	}
	err := t.arm()
	if err == nil {
		err = t.clearTarget()
	}
	switch {
	case err == nil:
		t.forgetFlows()
		return t.rec.Save()
	case t.adopted:
		return errors.Join(err, t.rec.Remove()) // it was frozen before, and stays so
	}
	return errors.Join(err, t.forget())
}

// leftovers returns the sockets in the target that are in the way: same
// addresses and ports as a connection of the images.
func (t *transaction) leftovers() ([]tcp.Socket, error) {
	coming := make(map[tcp.Tuple]bool, len(t.rec.Conns))
	for _, c := range t.rec.Conns {
		coming[c] = true
	}
	socks, err := t.sockets()
	if err != nil {
		return nil, err
	}
	var found []tcp.Socket
	for _, s := range socks {
		if s.Connected() && coming[s.Tuple] {
			found = append(found, s)
		}
	}
	return found, nil
}

// checkTarget makes sure that the restore can work, and changes nothing.
func (t *transaction) checkTarget() error {
	missing, err := t.missingAddresses()
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s lacks the local address %s of %d connections in the images: give the restored container the address that the dumped one had (a static address), then restore again; nothing was changed",
			t.ns, list(missing), len(t.rec.Conns))
	}
	// The end of the former tasks may just be under way here.
	records, err := record.Of(t.ns)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.ID != t.rec.ID && r.Op == record.Dump {
			if _, err := Settled(r); err != nil {
				return err
			}
		}
	}
	left, err := t.leftovers()
	if err != nil {
		return err
	}
	for _, s := range left {
		if s.Inode != 0 {
			return fmt.Errorf("the connection %s is still open in %s: a process there owns it%s; nothing was changed", s.Tuple, t.ns, t.ownerHint())
		}
	}
	return nil
}

// ownerHint names the held tree that most likely owns a connection in the way.
func (t *transaction) ownerHint() string {
	records, _ := record.Of(t.ns)
	for _, r := range records {
		if r.Phase == record.Held && r.Alive() {
			return fmt.Sprintf(" (%s: end it silently with netfreeze kill %s)", reason(r), name(r))
		}
	}
	return " (end the dumped tasks first)"
}

// clearTarget removes ownerless sockets that would collide: FIN-WAIT,
// TIME-WAIT and the like of a former life of the same connections. It is
// frozen by now, so the RST that goes with that leaves for nowhere.
func (t *transaction) clearTarget() error {
	left, err := t.leftovers()
	if err != nil || len(left) == 0 {
		return err
	}
	return t.ns.Do(func() error {
		for _, s := range left {
			if s.Inode != 0 {
				continue
			}
			if err := tcp.Destroy(s); err != nil {
				return err
			}
			t.log.Infof("pre-restore: removed what was left of the connection %s", s.Tuple)
		}
		return nil
	})
}

// postSetupNS makes sure of the namespace: now the root task is in it.
func (t *transaction) postSetupNS(a request) error {
	root, err := a.root()
	if err != nil {
		return err
	}
	defer root.Close()
	t.rec.Tree = []proc.Ref{root.Ref}
	ns, err := netns.OpenPID(root.PID, root.Start)
	if err != nil {
		return err
	}
	if t.ns != nil && t.ns.ID() == ns.ID() {
		_ = ns.Close()
		return t.rec.Save()
	}
	if t.ns != nil {
		t.log.Warnf("post-setup-namespaces: the tasks are in %s, not in %s as it looked before", ns, t.ns)
		if !t.adopted {
			if err := t.thaw(); err != nil {
				t.log.Warn(oneLine(err))
			}
		}
		_ = t.ns.Close()
		t.ns, t.adopted = nil, false
	}
	if err := t.use(ns); err != nil {
		_ = ns.Close()
		return err
	}
	if t.rec.Addressed {
		if err := t.checkTarget(); err != nil {
			return err
		}
	}
	if err := t.freezeTarget(); err != nil {
		return err
	}
	t.greet()
	t.log.Infof("post-setup-namespaces: frozen %s", t.rec.NetNS)
	return nil
}
