// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// The containers of a pod share one network namespace, so a freeze of one is a
// freeze of all, and so would its end be. This file decides what must stay frozen
// for the others when one of them gets its network back.

// SharedError says that the namespace must stay frozen for another container.
type SharedError struct{ By *record.Record }

// Error names who it is and how to change that.
func (e *SharedError) Error() string {
	return code.Text(e.Code(), fmt.Sprintf("%s in it as well (both end with netfreeze thaw '%s')", e.By.DescribeHold(), e.By.NetNS))
}

// Code implements [code.Coder].
func (*SharedError) Code() code.Code { return code.AlreadyHeld }

// siblings sorts the other records of the namespace by what becomes of them
// when the records of ours let go of it: one may need all of it frozen, some
// need their own connections kept silent, and some are taken over.
func siblings(ns *netns.Namespace, ours []*record.Record) (holder *record.Record, silent, taken []*record.Record, err error) {
	records, err := record.Of(ns)
	if err != nil {
		return nil, nil, nil, err
	}
	var lists [][]tcp.Tuple
	for _, o := range ours {
		lists = append(lists, o.Conns)
	}
	conns := tcp.SetOf(lists...)
	restore := ours[0].Op == record.Restore
	for _, r := range records {
		known := len(r.Conns) > 0
		switch {
		case slices.ContainsFunc(ours, func(o *record.Record) bool { return o.ID == r.ID }):
		case r.Scope == record.Connections:
			if restore && !r.Holds() && !r.Settling() && conns.Overlaps(r.Conns) {
				taken = append(taken, r)
			}
		case r.Holds():
			holder = r
		case !r.Waits() && r.Settling():
			// Its CRIU has ended, and its settler is about to undo what it did.
		case !r.Waits():
			taken = append(taken, r)
		case known && !conns.Overlaps(r.Conns):
			silent = append(silent, r)
		case restore && r.MoreToCome() > 0:
			holder = r // for the pod's other containers
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
// and these alone. The error is a [*SharedError] where all must stay frozen. The
// caller has the namespace's lock.
func (k *Keeper) endWhole(ns *netns.Namespace, remove func() error, ours ...*record.Record) error {
	holder, silent, taken, err := siblings(ns, ours)
	if err != nil {
		return err
	}
	if holder != nil {
		return &SharedError{holder}
	}
	for _, r := range silent {
		if err := k.narrow(ns, r); err != nil {
			return fmt.Errorf("keep the connections of %s silent: %w", r.Describe(), err)
		}
	}
	// Where no record can be written any more, the look at the rules ends the answers.
	_ = silence(append(taken, ours...)...)
	return remove()
}

// narrow turns a record's freeze of the whole namespace into one of its own
// connections. The caller has the namespace's lock, under which the record's own
// settler writes it too.
func (k *Keeper) narrow(ns *netns.Namespace, r *record.Record) error {
	if err := k.freezeConns(ns, r); err != nil {
		return err
	}
	r.Scope = record.Connections
	return r.Save()
}

// freezeConns freezes a record's connections for as long as it lasts.
func (k *Keeper) freezeConns(ns *netns.Namespace, r *record.Record) error {
	c, err := k.filter.OpenConns(ns, r.Backend, r.Owner)
	if err != nil {
		return err
	}
	return errors.Join(c.Freeze(r.Conns, max(r.Left(), time.Second)), c.Close())
}

// TakeOver removes the records, and what is left of the rules, of freezes that
// this restore's freeze has taken the place of.
func (f *Freeze) TakeOver() error {
	return f.lockedIfPossible(func() error {
		_, _, taken, err := siblings(f.ns, []*record.Record{f.Record})
		errs := []error{err}
		for _, r := range taken {
			if r.Scope == record.Connections {
				if err := f.thawOwner(f.ns, r); err != nil {
					errs = append(errs, err)
					continue
				}
			}
			errs = append(errs, r.Remove())
		}
		return errors.Join(errs...)
	})
}

// thawOwner removes the rules of a record of scope connections.
func (k *Keeper) thawOwner(ns *netns.Namespace, r *record.Record) error {
	_ = silence(r) // see endWhole
	c, err := k.filter.OpenConns(ns, r.Backend, r.Owner)
	if err != nil {
		return err
	}
	return errors.Join(c.Thaw(), c.Close())
}
