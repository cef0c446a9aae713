package hooks

import (
	"errors"
	"fmt"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// use makes ns the transaction's namespace and opens a back end on it. A tree
// in the namespace of CRIU itself, usually the host's, gets scope connections
// and nothing else; any other namespace is frozen as a whole, unless it is one
// that must not be.
func (t *transaction) use(ns *netns.Namespace) error {
	own, err := netns.OpenPID(t.criu.PID, t.criu.Start)
	if err != nil {
		return fmt.Errorf("find out which network namespace CRIU runs in: %w", err)
	}
	defer own.Close() //nolint:errcheck // opened for comparison
	// To choose a back end its rules are tried out: nobody else may rely on
	// them meanwhile.
	unlock, err := record.LockNetNS(ns)
	if err != nil {
		return err
	}
	defer unlock()
	t.closeRules()
	if ns.ID() == own.ID() {
		err = t.useConnections(ns)
	} else {
		err = t.useWhole(ns, own.ID())
	}
	if err != nil {
		return err
	}
	if t.rec.Cookie, err = ns.Cookie(); err != nil {
		return err
	}
	if t.rec.ForeignLocks == nil {
		locks, _ := rules.CRIULocks(ns) // none where there is no nf_tables
		t.rec.ForeignLocks = append([]string{}, locks...)
	}
	t.ns, t.rec.NetNS = ns, ns.ID()
	t.rec.Path = netns.Mounted(ns.ID())
	return nil
}

func (t *transaction) useConnections(ns *netns.Namespace) (err error) {
	t.rec.Scope = record.Connections
	t.conns, err = rules.OpenConns(ns, rules.Kind(t.set.Backend), t.rec.Owner)
	if err == nil {
		t.rec.Backend = string(t.conns.Backend())
	}
	return err
}

func (t *transaction) useWhole(ns *netns.Namespace, own netns.ID) error {
	t.rec.Scope = record.NetNS
	isolated, err := ns.Isolate(own)
	if err != nil {
		return err
	}
	t.whole, err = rules.Open(isolated, rules.Kind(t.set.Backend))
	if err != nil {
		return err
	}
	t.rec.Backend = string(t.whole.Backend())
	before, known := t.look(ns)
	t.adopted = t.adopted || before.Frozen
	t.mixed = !known || before.Frozen && before.Backend != t.whole.Backend()
	t.least = time.Now().Add(before.Left)
	return nil
}

// look finds out what is frozen already, if that can be told: rules that came
// out of images may be in a form that iptables cannot read.
func (t *transaction) look(ns *netns.Namespace) (before rules.State, known bool) {
	before, err := rules.Look(ns)
	if err != nil {
		t.log.Debugf("what is frozen already cannot be told: %s", oneLine(err))
	}
	return before, err == nil
}

// arm freezes, or renews the freeze.
func (t *transaction) arm() error {
	unlock, err := record.LockNetNS(t.ns)
	if err != nil {
		return err
	}
	defer unlock()
	ttl := max(t.set.TTL, time.Until(t.least))
	if t.whole != nil {
		err = t.whole.Freeze(ttl)
	} else {
		err = t.conns.Freeze(t.rec.Conns, ttl)
	}
	if err != nil {
		return fmt.Errorf("freeze %s: %w", t.ns, err)
	}
	t.thawed, t.lifted = false, false
	if t.armed.IsZero() {
		t.armed = time.Now()
	}
	t.rec.Until = time.Now().Add(ttl)
	return nil
}

// lift gives the network back at once, by the socket that is open: somebody
// waits. What it leaves, rules that drop nothing, thaw removes.
func (t *transaction) lift() error {
	if t.lifted || t.thawed {
		return nil
	}
	if t.whole == nil || t.mixed {
		return t.thaw()
	}
	unlock, err := record.LockNetNS(t.ns)
	if err == nil {
		err = endWhole(t.ns, t.whole.Lift, t.rec)
		unlock()
	}
	if err != nil {
		return t.thaw() // which says what is wrong
	}
	t.lifted = true
	t.sayThawed()
	return nil
}

// sayThawed tells how long traffic was frozen.
func (t *transaction) sayThawed() {
	if !t.armed.IsZero() {
		t.log.Infof("thawed %s after %v", t.ns.ID(), time.Since(t.armed).Round(time.Microsecond))
	}
}

// thaw ends the freeze and removes its rules, unless somebody else still needs
// the namespace frozen: containers of a pod share it. It may be called again at
// any time.
func (t *transaction) thaw() error {
	if t.ns == nil || t.thawed {
		return nil
	}
	err := t.remove()
	var held *heldError
	switch {
	case errors.As(err, &held):
		t.log.Warnf("%s stays frozen: %s", t.ns, held)
		return nil
	case err != nil:
		return fmt.Errorf("thaw %s: %w", t.ns, err)
	}
	t.thawed = true
	if !t.lifted {
		t.sayThawed()
	}
	return nil
}

// remove takes away the rules, those of a whole namespace whoever made them.
func (t *transaction) remove() error {
	unlock, err := record.LockNetNS(t.ns)
	if err != nil {
		return err
	}
	defer unlock()
	if t.conns != nil {
		return t.conns.Thaw()
	}
	isolated, err := t.isolate()
	if err != nil {
		return err
	}
	return endWhole(t.ns, func() error { return rules.ThawAll(isolated) }, t.rec)
}

// forget removes the record of a transaction that has taken its freeze back; if
// it could not, the record stays, so that netfreeze thaw finds it.
func (t *transaction) forget() error {
	if err := t.thaw(); err != nil {
		return err
	}
	return t.rec.Remove()
}

// isolate makes sure again that the namespace is neither the host's nor CRIU's,
// which may be dead by now.
func (t *transaction) isolate() (*netns.Isolated, error) {
	var others []netns.ID
	if own, err := netns.OpenPID(t.criu.PID, t.criu.Start); err == nil {
		others = append(others, own.ID())
		_ = own.Close()
	}
	return t.ns.Isolate(others...)
}
