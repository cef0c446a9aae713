package hooks

import (
	"errors"
	"slices"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// ThawNetNS removes a freeze of a whole namespace that no record speaks of, and
// reports whether there was one.
func ThawNetNS(ns *netns.Namespace) (bool, error) {
	unlock, err := record.LockNetNS(ns)
	if err != nil {
		return false, err
	}
	defer unlock()
	st, err := rules.Look(ns)
	if err != nil {
		return false, err
	}
	if st.Backend == "" {
		return false, nil
	}
	isolated, err := ns.Isolate()
	if err != nil {
		return false, err
	}
	return true, rules.ThawAll(isolated)
}

// Status is one line of netfreeze status.
type Status struct {
	ID          string    `json:"id"`
	Container   string    `json:"container,omitempty"`
	Name        string    `json:"name,omitempty"`
	Pod         string    `json:"pod,omitempty"` // namespace/name
	PID         int       `json:"pid,omitempty"` // the root task, while it lives
	NetNS       string    `json:"netns"`
	Path        string    `json:"path,omitempty"`
	Address     string    `json:"address,omitempty"` // of a guard
	Scope       string    `json:"scope"`             // netns, connections, or resets of a guard
	Policy      string    `json:"policy,omitempty"`
	Why         string    `json:"why,omitempty"` // what chose the policy
	State       string    `json:"state"`         // running, committed, held, isolated, ended, frozen, orphaned, criu-leftover, guard
	Backend     string    `json:"backend"`
	Since       time.Time `json:"since,omitzero"`
	Frozen      bool      `json:"frozen"`       // as the kernel says
	LeftSeconds float64   `json:"left_seconds"` // until the kernel ends it
	Note        string    `json:"note,omitempty"`
}

// List returns what is frozen, oldest first, as the kernel sees it now. Records
// of what has gone with its namespace, or has timed out with nothing left to
// undo, are cleared away.
func List() ([]Status, error) {
	records, err := record.All()
	errs := []error{err}
	var list []Status
	for _, r := range records {
		s, stale, err := look(r)
		errs = append(errs, err)
		if stale {
			errs = append(errs, discard(r))
			continue
		}
		list = append(list, s)
	}
	left, err := leftovers()
	list, errs = append(list, left...), append(errs, err)
	guarded, err := guards()
	list, errs = append(list, guarded...), append(errs, err)
	record.Sweep()
	slices.SortFunc(list, func(a, b Status) int { return a.Since.Compare(b.Since) })
	return list, errors.Join(errs...)
}

// guards lists the addresses whose resets are dropped in our own namespace.
func guards() ([]Status, error) {
	ns, err := netns.OpenSelf()
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // rules stay without the handle
	unlock, err := record.LockNetNS(ns)
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := rules.Guards(ns) // and away with those that are over
	var list []Status
	for _, g := range all {
		list = append(list, Status{
			ID: "guard", NetNS: ns.ID().String(), Address: g.Address.String(), Scope: "resets", State: "guard",
			Backend: string(rules.NFTables), LeftSeconds: g.Left.Seconds(),
			Note: "RST from this address is dropped; netfreeze guard --off " + g.Address.String() + " ends that",
		})
	}
	return list, err
}

// discard removes a record that nobody needs any more, and what is left of its
// rules, which drop nothing by now.
func discard(r *record.Record) error {
	ns, err := findNetNS(r)
	if errors.Is(err, netns.ErrGone) {
		return r.Remove()
	}
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // only the rules mattered
	unlock, err := record.LockNetNS(ns)
	if err != nil {
		return err
	}
	defer unlock()
	var held *heldError
	if err := removeRules(ns, []*record.Record{r}); err != nil && !errors.As(err, &held) {
		return err
	}
	return r.Remove()
}

// tidy discards what is over, and what killed settlers have left.
func tidy() {
	records, _ := record.All()
	for _, r := range records {
		if r.Over() {
			_ = discard(r) // the next one tries again
		}
	}
	record.Sweep()
}

// look compares a record with the kernel. It is stale if nothing is left that
// anybody could undo.
func look(r *record.Record) (s Status, stale bool, err error) {
	s = Status{
		ID: r.ID, Container: r.Container, Name: r.Name, Pod: r.Pod,
		NetNS: r.NetNS.String(), Path: r.Path, Scope: string(r.Scope), Policy: r.Policy, Why: r.Why,
		State: string(r.Phase), Backend: r.Backend, Since: r.Since, Note: r.Note,
	}
	alive := r.Alive()
	if alive {
		s.PID = r.Tree[0].PID
	}
	settling := r.Settling()
	if (r.Phase == record.Running || r.Phase == record.Committed) && !settling {
		s.State = "orphaned"
	}
	if r.Phase == record.Held && !alive {
		s.State = string(record.Ended)
	}
	ns, err := findNetNS(r)
	if errors.Is(err, netns.ErrGone) {
		return s, !alive && !settling, nil
	}
	if err != nil {
		return s, false, err
	}
	defer ns.Close()                    //nolint:errcheck // only reading
	unlock, err := record.LockNetNS(ns) // what is half changed says nothing
	if err != nil {
		return s, false, err
	}
	defer unlock()
	left, err := timeLeft(ns, r)
	if err != nil {
		return s, false, err
	}
	s.Frozen, s.LeftSeconds = left > 0, left.Seconds()
	return s, !s.Frozen && !settling && !(alive && (r.Stopped || r.Phase == record.Isolated)), nil
}

// timeLeft asks the kernel how long the record's freeze lasts; 0 is thawed.
func timeLeft(ns *netns.Namespace, r *record.Record) (time.Duration, error) {
	if r.Scope == record.NetNS {
		st, err := rules.Look(ns)
		return st.Left, err
	}
	c, err := rules.OpenConns(ns, rules.Kind(r.Backend), r.Owner)
	if err != nil {
		return 0, err
	}
	defer c.Close() //nolint:errcheck // only reading
	_, left, err := c.Frozen()
	return left, err
}

// Subject names what a record is about, for people.
func Subject(r *record.Record) string {
	if r.Op == record.Manual {
		return r.NetNS.String()
	}
	return subject(r)
}
