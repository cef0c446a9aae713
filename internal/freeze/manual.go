// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// Manual freezes a whole namespace for ttl at most and keeps the record r of it,
// in which ID, Container, Network and Note are the caller's. Repeated, it renews
// the time to live; it never shortens that of a freeze that is there for somebody
// else. A restore into the namespace adopts the freeze. After an error everything
// is as before.
func (k *Keeper) Manual(ns *netns.Namespace, r record.Record, f Options) (*record.Record, error) {
	isolated, err := ns.Isolate()
	if err != nil {
		return nil, err
	}
	err = locked(ns, func() error { return k.manual(isolated, &r, f) })
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// Options are how a freeze without a transaction is made.
type Options struct {
	Backend backend.Kind
	TTL     time.Duration
	// Sealed says that tasks run on in the namespace, which must not get past the
	// freeze, see Freeze.Seal. What can only in part be sealed, the record's Note says.
	Sealed bool
}

func (k *Keeper) manual(ns *netns.Isolated, r *record.Record, o Options) (err error) {
	f, err := k.filter.Open(ns, o.Backend)
	if err != nil {
		return err
	}
	defer f.Close()
	before, err := k.filter.Look(ns.Namespace)
	if err != nil {
		return err
	}
	ttl := max(o.TTL, before.Left)
	if r.Cookie, err = ns.Cookie(); err != nil {
		return err
	}
	r.Op, r.Phase, r.Scope = record.Manual, record.Frozen, record.NetNS
	r.NetNS, r.Path, r.Backend = ns.ID(), netns.Mounted(ns.ID()), f.Backend()
	r.Since = time.Now()
	r.ExpireIn(ttl)
	former, _ := record.Load(r.ID)
	if err := r.Save(); err != nil {
		return err
	}
	err = f.Freeze(ttl)
	if err == nil && o.Sealed {
		err = sealManual(ns, f, r)
	}
	if err != nil {
		if former != nil && before.Frozen {
			return errors.Join(err, former.Save()) // what was renewed is in force as before
		}
		if !before.Frozen {
			err = errors.Join(err, f.Thaw())
		}
		return errors.Join(err, r.Remove())
	}
	return nil
}

// sealManual seals a freeze by hand; what cannot be sealed the record's note says.
func sealManual(ns *netns.Isolated, f rules.Freezer, r *record.Record) error {
	note, err := sealFor(ns.Namespace, r.ID, f.Seal)
	if note == "" || err != nil {
		return err
	}
	r.Note = note
	return r.Save()
}

// InForce reports whether the freeze of ns that the record called id stands for is
// in force. It is also true where there is no such record, or where a restore has
// adopted the freeze: then nobody waits for it any more.
func (k *Keeper) InForce(ns *netns.Namespace, id string) (ok bool, err error) {
	err = lockedIfPossible(ns, func() error {
		st, err := k.filter.Look(ns)
		if ok = st.Frozen; ok || err != nil {
			return err
		}
		// A restore that has thawed it meanwhile removes the record.
		others, err := record.Of(ns)
		if ok = slices.ContainsFunc(others, func(r *record.Record) bool { return r.Op == record.Restore }); ok {
			return err
		}
		r, err := record.Load(id)
		if errors.Is(err, os.ErrNotExist) {
			ok, err = true, nil
		}
		if err == nil && r != nil {
			ok = !r.Waits()
		}
		return err
	})
	return ok, err
}
