// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// preRestore is a restore's first action. Nothing has been restored yet: an
// error now costs nothing. Once it is done the namespace answers no peer.
func preRestore(env *Env, req action.Request) (*Restore, error) {
	dir, err := imageDir(req, env.CRIU.Ref)
	if err != nil {
		return nil, err
	}
	// CRIU may have ended, and the path into its descriptors with it, before all is read.
	held, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the image directory: %w; nothing was changed", err)
	}
	images := beside(func() (*criuimg.Checkpoint, error) { return criuimg.Read(fmt.Sprintf("/proc/self/fd/%d", held.Fd())) })
	ct := findContainer(env)
	c, err := begin(env, record.Restore, ct)
	cp, err2 := images()
	if err2 != nil {
		err = fmt.Errorf("%w; nothing was changed", err2)
	}
	if err != nil {
		_ = held.Close()
		return nil, err
	}
	r := newRestore(c)
	r.held, r.images = held, cp
	r.record().Conns = cp.Conns
	r.record().Images, _ = os.Readlink(dir) // where there is none, a new settler cannot read them
	r.record().Addressed = cp.NetNS == criuimg.External
	if err := r.prepare(cp, ct); err != nil {
		r.Close()
		return nil, fmt.Errorf("cannot prepare the restore: %w", err)
	}
	r.nudger = newNudger(env, r.set, cp)
	r.announceFrozen()
	return r, nil
}

// prepare freezes the target, where it exists already, and clears the way for the
// connections that come. It takes its freeze back if that fails.
func (r *Restore) prepare(cp *criuimg.Checkpoint, ct *container.Container) error {
	ns, where, err := findNetNS(r.env.CRIU.Ref, cp, ct)
	if err != nil {
		return err
	}
	if ns == nil {
		r.env.Log.Infof("pre-restore: the network namespace is not known yet (%s): it will be frozen at post-setup-namespaces", where)
		return r.freeze.Save()
	}
	look := beside(func() (target, error) { return r.look(ns) })
	err = r.freeze.Open(ns)
	there, err2 := look() // it uses ns, which may have to be closed
	if err != nil {
		_ = ns.Close()
		return fmt.Errorf("%w (the target namespace was found through %s)", err, where)
	}
	if err2 != nil {
		return err2
	}
	if err := r.checkTarget(there); err != nil {
		return err
	}
	if err := r.freezeTarget(); err != nil {
		return err
	}
	rec := r.record()
	r.env.Log.WithField("backend", rec.Backend).Infof("pre-restore: frozen %s, found through %s, scope %s, %d connections to come",
		rec.NetNS, where, rec.Scope, len(rec.Conns))
	return nil
}

// beside calls fn beside its caller, who is waited for. The function that it returns waits
// for the result.
func beside[T any](fn func() (T, error)) func() (T, error) {
	wait := sync.OnceValues(fn)
	go wait() //nolint:errcheck // whoever waits gets it
	return wait
}

// freezeTarget freezes the target, or takes over the freeze that is there, and then
// removes what is left of the connections there.
func (r *Restore) freezeTarget() error {
	if err := r.freeze.Save(); err != nil {
		return err
	}
	err := r.freeze.Arm()
	if err == nil {
		err = r.clearTarget()
	}
	switch {
	case err == nil:
		r.to(restoreFrozen)
		r.forgetFlows()
		return r.freeze.Save()
	case r.freeze.Adopted():
		return errors.Join(err, r.freeze.Abandon()) // it was frozen before, and stays so
	}
	return errors.Join(err, r.freeze.Forget())
}

// target is what is in the target namespace before it is frozen.
type target struct {
	missing []netip.Addr // addresses that the connections need and it lacks
	socks   []tcp.Socket
}

// look looks at the target namespace, which need not be the freeze's yet.
func (r *Restore) look(ns *netns.Namespace) (t target, err error) {
	socks := beside(func() ([]tcp.Socket, error) { return netns.In(ns, tcp.List) })
	t.missing, err = missingAddresses(ns, r.record().Conns)
	var err2 error
	t.socks, err2 = socks()
	return t, errors.Join(err, err2)
}

// checkTarget makes sure that the restore can work, and changes nothing. It is given what
// was there a moment ago.
func (r *Restore) checkTarget(there target) error {
	ns, missing := r.freeze.NetNS(), there.missing
	if len(missing) > 0 {
		return code.New(code.NoAddress, fmt.Sprintf("%s lacks the local address %s of %d connections in the images: give the restored container the address that the dumped one had (a static address), then restore again; nothing was changed",
			ns, netns.List(missing), len(r.record().Conns)))
	}
	// The end of the former tasks may just be under way here.
	records, err := record.Of(ns)
	if err != nil {
		return err
	}
	for _, other := range records {
		if other.ID != r.record().ID && other.Op == record.Dump {
			if _, err := freeze.Settled(other); err != nil {
				return err
			}
		}
	}
	if len(tcp.Colliding(there.socks, tcp.SetOf(r.record().Conns))) == 0 {
		return nil
	}
	left, err := r.staleSockets() // they may have gone meanwhile
	if err != nil {
		return err
	}
	for _, s := range left {
		if s.Inode == 0 && !s.Orphan() {
			return code.New(code.InQueue, fmt.Sprintf("the connection %s waits in a listening queue in %s, for a process there to accept it: end that process, or wait until it has, then restore again; nothing was changed", s.Tuple, ns))
		}
		if s.Inode != 0 {
			return code.New(code.StillOpen, fmt.Sprintf("the connection %s is still open in %s: a process there owns it%s; nothing was changed", s.Tuple, ns, r.ownerHint()))
		}
	}
	return nil
}

// staleSockets returns the sockets in the target that are in the way: same
// addresses and ports as a connection of the images.
func (r *Restore) staleSockets() ([]tcp.Socket, error) {
	socks, err := r.freeze.Sockets()
	if err != nil {
		return nil, err
	}
	return tcp.Colliding(socks, tcp.SetOf(r.record().Conns)), nil
}

// ownerHint names the held tree that most likely owns a connection in the way.
func (r *Restore) ownerHint() string {
	records, _ := record.Of(r.freeze.NetNS())
	for _, other := range records {
		if other.Phase == record.Held && other.Alive() {
			return fmt.Sprintf(" (%s: end it silently with netfreeze kill %s)", other.DescribeHold(), other.ThawTarget())
		}
	}
	return " (end the dumped tasks first)"
}

// clearTarget removes ownerless sockets that would collide: FIN-WAIT,
// TIME-WAIT and the like of a former life of the same connections. The target is
// frozen by now, so the RST that goes with that reaches nobody.
func (r *Restore) clearTarget() error {
	left, err := r.staleSockets()
	if err != nil || len(left) == 0 {
		return err
	}
	return r.freeze.NetNS().Do(func() error {
		for _, s := range left {
			if !s.Orphan() {
				continue
			}
			if err := tcp.Destroy(s); err != nil {
				return err
			}
			r.env.Log.Infof("pre-restore: removed what was left of the connection %s", s.Tuple)
		}
		return nil
	})
}
