package hooks

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/config"
	"github.com/criu-netfreeze/criu-netfreeze/netns"
	"github.com/criu-netfreeze/criu-netfreeze/oci"
	"github.com/criu-netfreeze/criu-netfreeze/proc"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
	"github.com/criu-netfreeze/criu-netfreeze/state"
	"github.com/criu-netfreeze/criu-netfreeze/tcp"
)

// transaction is one dump or one restore, from its first action to its
// settlement. What has to survive the settler is in rec.
type transaction struct {
	rec  *state.Record
	set  config.Settings
	criu *proc.Process
	log  *logrus.Logger

	ns    *netns.Namespace // nil on a restore whose namespace CRIU has yet to make
	whole rules.Freezer    // scope netns
	conns rules.ConnFreezer
	stats statsFile // dump: how CRIU says that it succeeded

	resumer   *resumer // restore: gets traffic going after the thaw
	addressed bool     // restore: the caller of CRIU gives the namespace its addresses, before

	unlocked bool      // CRIU gave the network back
	thawed   bool      // nothing of ours is frozen any more
	armed    time.Time // when the freeze began
}

// begin returns a new transaction for the container c.
func (s *settler) begin(op state.Op, c *oci.Container) (*transaction, error) {
	cfg, err := s.configure()
	if err != nil {
		return nil, err
	}
	if c == nil {
		c = &oci.Container{}
	}
	set, err := cfg.For(describe(c))
	if err != nil {
		return nil, err
	}
	rec := &state.Record{
		ID: s.id, Op: op, Phase: state.Running, CRIU: s.criu.Ref,
		Policy: string(set.Policy), Why: set.Why,
		Container: c.ID, Name: c.Name, Owner: ownerOf(s.id),
		Since: time.Now(),
	}
	if c.PodName != "" {
		rec.Pod = c.PodNamespace + "/" + c.PodName
	}
	return &transaction{rec: rec, set: set, criu: s.criu, log: s.log}, nil
}

// reopen takes up a transaction from its record.
func reopen(s *settler, cfg *config.Config, rec *state.Record) (*transaction, error) {
	set, err := cfg.For(config.Container{})
	if err != nil {
		return nil, err
	}
	// What was chosen for the container at the beginning holds.
	set.Policy, set.Why, set.Backend = config.Policy(rec.Policy), rec.Why, rec.Backend
	set.TTL = time.Until(rec.Until)
	t := &transaction{rec: rec, set: set, criu: s.criu, log: s.log}
	if rec.Phase == state.Committed {
		if t.stats, err = watchStats(s.criu.Ref); err != nil {
			return nil, err
		}
	}
	if rec.NetNS == (netns.ID{}) {
		return t, nil
	}
	ns, err := findNetNS(rec)
	if err != nil {
		return nil, fmt.Errorf("find the network namespace of the transaction again: %w", err)
	}
	return t, t.use(ns)
}

// describe is what the configuration chooses by.
func describe(c *oci.Container) config.Container {
	return config.Container{
		ID: c.ID, Name: c.Name, PodNamespace: c.PodNamespace, PodName: c.PodName,
		Annotations: c.Annotations,
	}
}

// ownerOf derives the owner of single connections' rules from the transaction.
func ownerOf(id string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return fmt.Sprintf("t%08x", h.Sum32())
}

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
	t.closeRules()
	kind := rules.Kind(t.set.Backend)
	if ns.ID() == own.ID() {
		t.rec.Scope = state.Connections
		t.conns, err = rules.OpenConns(ns, kind, t.rec.Owner)
		if err == nil {
			t.rec.Backend = string(t.conns.Backend())
		}
	} else {
		t.rec.Scope = state.NetNS
		var isolated *netns.Isolated
		if isolated, err = ns.Isolate(own.ID()); err == nil {
			t.whole, err = rules.Open(isolated, kind)
		}
		if err == nil {
			t.rec.Backend = string(t.whole.Backend())
		}
	}
	if err != nil {
		return err
	}
	if t.rec.ForeignLocks == nil {
		t.rec.ForeignLocks, _ = rules.CRIULocks(ns) // none where there is no nf_tables
	}
	t.ns, t.rec.NetNS = ns, ns.ID()
	t.rec.Path = netns.Mounted(ns.ID())
	return nil
}

// closeRules lets go of the back end. Rules stay.
func (t *transaction) closeRules() {
	if t.whole != nil {
		_ = t.whole.Close()
	}
	if t.conns != nil {
		_ = t.conns.Close()
	}
	t.whole, t.conns = nil, nil
}

func (t *transaction) close() {
	t.closeRules()
	t.stats.close()
	if t.ns != nil {
		_ = t.ns.Close()
	}
}

// arm freezes, or renews the freeze.
func (t *transaction) arm() error {
	unlock, err := state.LockNetNS(t.ns)
	if err != nil {
		return err
	}
	defer unlock()
	if t.whole != nil {
		err = t.whole.Freeze(t.set.TTL)
	} else {
		err = t.conns.Freeze(t.rec.Conns, t.set.TTL)
	}
	if err != nil {
		return fmt.Errorf("freeze %s: %w", t.ns, err)
	}
	t.thawed = false
	if t.armed.IsZero() {
		t.armed = time.Now()
	}
	t.rec.Until = time.Now().Add(t.set.TTL)
	return nil
}

// thaw lifts the freeze, unless somebody else still needs the namespace frozen:
// containers of a pod share it. It may be called again at any time.
func (t *transaction) thaw() error {
	if t.ns == nil || t.thawed {
		return nil
	}
	unlock, err := state.LockNetNS(t.ns)
	if err != nil {
		return err
	}
	defer unlock()
	if t.conns != nil {
		err = t.conns.Thaw()
	} else {
		var other *state.Record
		if other, err = holder(t.rec); err == nil && other != nil {
			t.log.Warnf("%s stays frozen: %s (undo that with: netfreeze thaw %s)", t.ns, reason(other), name(other))
			return nil
		}
		if err == nil {
			err = t.thawWhole()
		}
	}
	if err != nil {
		return fmt.Errorf("thaw %s: %w (netfreeze thaw %s tries again)", t.ns, err, t.ns.ID())
	}
	t.thawed = true
	if !t.armed.IsZero() {
		t.log.Infof("thawed %s after %v", t.ns.ID(), time.Since(t.armed).Round(time.Microsecond))
	}
	return nil
}

// thawWhole removes what either back end may have left in the namespace: our
// own rules, a freeze that was adopted, rules that came out of the images.
func (t *transaction) thawWhole() error {
	isolated, err := t.isolate()
	if err != nil {
		return err
	}
	return rules.ThawAll(isolated)
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

// holder returns a record that needs the namespace frozen whatever becomes of
// the given ones, or nil. A restore takes over what only waits for a restore;
// to anybody else that is a reason to leave the namespace as it is.
func holder(ours ...*state.Record) (*state.Record, error) {
	records, err := state.Of(ours[0].NetNS)
	for _, r := range records {
		one := slices.ContainsFunc(ours, func(o *state.Record) bool { return o.ID == r.ID })
		if one || r.Scope != state.NetNS {
			continue
		}
		waits := r.Waits() && ours[0].Op != state.Restore
		if r.Holds() || waits {
			return r, nil
		}
	}
	return nil, err
}

// dropAdopted removes the records of freezes that this transaction took over or
// that nobody needs any more.
func (t *transaction) dropAdopted() {
	records, _ := state.Of(t.rec.NetNS)
	for _, r := range records {
		if r.ID == t.rec.ID || r.Holds() {
			continue
		}
		if r.Scope == state.Connections {
			if !overlap(r.Conns, t.rec.Conns) {
				continue
			}
			if err := thawOwner(t.ns, r); err != nil {
				t.log.Warn(oneLine(err))
				continue
			}
		}
		if err := r.Remove(); err != nil {
			t.log.Warn(oneLine(err))
		}
	}
}

func overlap(a, b []tcp.Tuple) bool {
	in := make(map[tcp.Tuple]bool, len(a))
	for _, t := range a {
		in[t] = true
	}
	for _, t := range b {
		if in[t] {
			return true
		}
	}
	return false
}

// thawOwner removes the rules of a record of scope connections.
func thawOwner(ns *netns.Namespace, r *state.Record) error {
	c, err := rules.OpenConns(ns, rules.Kind(r.Backend), r.Owner)
	if err != nil {
		return err
	}
	return errors.Join(c.Thaw(), c.Close())
}

// reason says for people why a record keeps a namespace frozen.
func reason(r *state.Record) string {
	what := map[state.Phase]string{
		state.Running: "is being worked on", state.Committed: "is being worked on",
		state.Held: "is held", state.Isolated: "is isolated",
		state.Ended: "has ended", state.Frozen: "was frozen by hand",
	}[r.Phase]
	if r.Container != "" {
		return fmt.Sprintf("container %s %s", r.Container, what)
	}
	if len(r.Tree) > 0 {
		return fmt.Sprintf("the tree of pid %d %s", r.Tree[0].PID, what)
	}
	return fmt.Sprintf("%s %s", r.NetNS, what)
}

// name is a target by which the command line finds the record.
func name(r *state.Record) string {
	switch {
	case r.Container != "":
		return r.Container
	case len(r.Tree) > 0 && r.Alive():
		return fmt.Sprint(r.Tree[0].PID)
	case r.Path != "":
		return r.Path
	}
	return r.NetNS.String()
}

// findNetNS opens a record's namespace, wherever it is to be found now.
func findNetNS(r *state.Record) (*netns.Namespace, error) {
	for _, p := range r.Tree {
		if ns, err := netns.OpenPID(p.PID, p.Start); err == nil {
			if ns.ID() == r.NetNS {
				return ns, nil
			}
			_ = ns.Close()
		}
	}
	return netns.Find(r.NetNS)
}
