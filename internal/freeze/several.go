// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// The containers of a pod are restored one after the other into its new namespace. The
// first one's thaw would have the kernel reset the peers of the others, whose sockets
// are not there yet. So a freeze at the namespace's birth can be for several restores.

// CountRestore notes in the freezes that wait for several restores that this one is
// done, or that it is not after all.
func (f *Freeze) CountRestore(done bool) error {
	if f.ns == nil || !f.Adopted() {
		return nil // there was no freeze before, which could wait
	}
	return f.lockedIfPossible(func() error {
		records, err := record.Of(f.ns)
		if err != nil {
			return err
		}
		var errs []error
		for _, r := range records {
			if r.Restores == 0 || slices.Contains(r.Restored, f.Record.ID) == done {
				continue
			}
			if done {
				r.Restored = append(r.Restored, f.Record.ID)
			} else {
				r.Restored = slices.DeleteFunc(r.Restored, func(id string) bool { return id == f.Record.ID })
			}
			errs = append(errs, r.Save())
		}
		return errors.Join(errs...)
	})
}

// lookAgain is how long AwaitThaw waits at least until it looks again, and lookLast at
// most: in between it is a hundredth of the time that has gone by.
const (
	lookAgain = 20 * time.Millisecond
	lookLast  = time.Second
)

// AwaitThaw waits until nothing is frozen in ns any more, until a deadline at most. It
// reports whether that was seen.
func (k *Keeper) AwaitThaw(ns *netns.Namespace, deadline time.Time) bool {
	for begun := time.Now(); time.Now().Before(deadline); {
		if st, err := k.filter.Look(ns); err == nil && !st.Frozen {
			return true
		}
		time.Sleep(min(max(time.Since(begun)/100, lookAgain), lookLast))
	}
	return false
}

// noteOf is a record's note, and what it waits for.
func noteOf(r *record.Record) string {
	if n := r.MoreToCome(); n > 0 {
		return fmt.Sprintf("%s; waits for %d of %d restores", r.Note, n, r.Restores)
	}
	return r.Note
}
