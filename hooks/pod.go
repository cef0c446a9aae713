package hooks

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// The containers of a pod share one network namespace, so a freeze of one is a
// freeze of all, and so would its end be. This file says what the others are
// owed when one lets go.

// heldError says that the namespace must stay frozen for somebody else.
type heldError struct{ by *record.Record }

// Error names who it is and how to change that.
func (e *heldError) Error() string {
	return fmt.Sprintf("%s in it as well (both end with netfreeze thaw '%s')", reason(e.by), e.by.NetNS)
}

// siblings sorts the other records of the namespace by what becomes of them
// when the records of ours let go of it: one may need all of it frozen, some
// need their own connections kept silent, and some are taken over.
func siblings(ns *netns.Namespace, ours []*record.Record) (holder *record.Record, silent, taken []*record.Record, err error) {
	records, err := record.Of(ns)
	if err != nil {
		return nil, nil, nil, err
	}
	var conns []tcp.Tuple
	for _, o := range ours {
		conns = append(conns, o.Conns...)
	}
	restore := ours[0].Op == record.Restore
	for _, r := range records {
		known := len(r.Conns) > 0
		switch {
		case slices.ContainsFunc(ours, func(o *record.Record) bool { return o.ID == r.ID }):
		case r.Scope == record.Connections:
			if restore && !r.Holds() && overlap(r.Conns, conns) {
				taken = append(taken, r)
			}
		case r.Holds():
			holder = r
		case !r.Waits():
			taken = append(taken, r)
		case known && !overlap(r.Conns, conns):
			silent = append(silent, r)
		case restore:
			taken = append(taken, r) // what it restores, or a freeze made for it
		case known:
			silent = append(silent, r)
		default:
			holder = r // by hand, for a restore to come
		}
	}
	return holder, silent, taken, nil
}

// endWhole has remove take away the freeze of a whole namespace for the records
// of ours. A sibling whose connections wait for a restore keeps these frozen,
// and these alone. The error is a *heldError where all must stay frozen. The
// namespace is locked by the caller.
func endWhole(ns *netns.Namespace, remove func() error, ours ...*record.Record) error {
	holder, silent, _, err := siblings(ns, ours)
	if err != nil {
		return err
	}
	if holder != nil {
		return &heldError{holder}
	}
	for _, r := range silent {
		if err := narrow(ns, r); err != nil {
			return fmt.Errorf("keep the connections of %s silent: %w", subject(r), err)
		}
	}
	return remove()
}

// narrow turns a record's freeze of the whole namespace into one of its own
// connections.
func narrow(ns *netns.Namespace, r *record.Record) error {
	c, err := rules.OpenConns(ns, rules.Kind(r.Backend), r.Owner)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // the rules stay
	if err := c.Freeze(r.Conns, max(time.Until(r.Until), time.Second)); err != nil {
		return err
	}
	r.Scope = record.Connections
	return r.Save()
}

// dropTaken removes the records, and what is left of the rules, of freezes that
// this restore took over.
func (t *transaction) dropTaken() {
	_, _, taken, err := siblings(t.ns, []*record.Record{t.rec})
	errs := []error{err}
	for _, r := range taken {
		if r.Scope == record.Connections {
			if err := thawOwner(t.ns, r); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, r.Remove())
	}
	if err := errors.Join(errs...); err != nil {
		t.log.Warn(oneLine(err))
	}
}

func overlap(a, b []tcp.Tuple) bool {
	in := make(map[tcp.Tuple]bool, len(a))
	for _, t := range a {
		in[t] = true
	}
	return slices.ContainsFunc(b, func(t tcp.Tuple) bool { return in[t] })
}

// thawOwner removes the rules of a record of scope connections.
func thawOwner(ns *netns.Namespace, r *record.Record) error {
	c, err := rules.OpenConns(ns, rules.Kind(r.Backend), r.Owner)
	if err != nil {
		return err
	}
	return errors.Join(c.Thaw(), c.Close())
}
