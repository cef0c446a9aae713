// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"slices"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// While CRIU works behind a freeze, packets with its mark have to pass: it rebuilds
// connections with them. Afterwards they must not, since a container with CAP_NET_RAW
// can set the mark as well. This file closes that door, see rules.Freezer's Seal; the
// next Prepare or Arm opens it again.

// Seal lets no packet with CRIU's mark pass the freeze any longer, nor, where the
// kernel can stop them, those of packet sockets. It leaves that to the last one where
// CRIU is still at work in the namespace for somebody else. It is no error if nothing
// is frozen any more.
func (f *Freeze) Seal() error {
	if f.ns == nil {
		return nil
	}
	return f.lockedIfPossible(f.seal)
}

// seal is Seal under the namespace's lock.
func (f *Freeze) seal() error {
	seal := func(pass uint32) error { return f.sealBut(f.whole.Seal, pass) }
	if f.conns != nil {
		seal = func(uint32) error { return f.sealBut(f.conns.Seal, f.Record.Answer) }
	}
	note, err := sealFor(f.ns, f.Record.ID, seal)
	if note != "" {
		f.log.Warn(note)
	}
	if errors.Is(err, rules.ErrNotFrozen) {
		return nil
	}
	return err
}

// sealBut seals, and lets answers pass where the back end can.
func (f *Freeze) sealBut(seal func(pass uint32) error, pass uint32) error {
	err := seal(pass)
	if pass == 0 || err == nil || errors.Is(err, rules.ErrNotFrozen) || errors.Is(err, rules.ErrPacketSockets) {
		return err
	}
	if err2 := seal(0); err2 != nil && !errors.Is(err2, rules.ErrPacketSockets) {
		return err2
	}
	f.log.Warn(code.Wrap(code.Kernel, fmt.Errorf("the peers of %s are not answered, so that they give up after their own time: %w", f.ns, err)))
	return silence(f.Record)
}

// sealFor has seal close a freeze of ns but for answers with a mark, unless CRIU is at
// work there for another transaction than id. What can only in part be sealed note says, for people. The caller
// has the namespace's lock.
func sealFor(ns *netns.Namespace, id string, seal func(pass uint32) error) (note string, err error) {
	records, err := record.Of(ns)
	if err != nil || worksFor(records, id) {
		return "", err
	}
	if err = seal(answersOf(records)); errors.Is(err, rules.ErrPacketSockets) {
		return fmt.Sprintf("a program with CAP_NET_RAW can still send from packet sockets: %v", err), nil
	}
	return "", err
}

// sealAgain seals what stays frozen for somebody else: this transaction, which ends,
// has opened it. Rules of another back end than ours it has not touched.
func (f *Freeze) sealAgain() {
	if f.whole == nil {
		return
	}
	if err := f.seal(); err != nil {
		f.log.Warn(code.Any(err))
	}
}

// worksFor reports whether CRIU is at work in the records' namespace for another
// transaction than id.
func worksFor(records []*record.Record, id string) bool {
	return slices.ContainsFunc(records, func(r *record.Record) bool {
		return r.ID != id && (r.Phase == record.Running || r.Phase == record.Committed) && r.Holds()
	})
}

// unseal lets CRIU's packets pass what former transactions have frozen of connections
// that this restore is about to rebuild. The caller has the namespace's lock.
func (f *Freeze) unseal() error {
	_, _, taken, err := siblings(f.ns, []*record.Record{f.Record})
	if err != nil {
		return err
	}
	for _, r := range taken {
		if r.Scope != record.Connections {
			continue
		}
		if err := f.freezeConns(f.ns, r); err != nil {
			return fmt.Errorf("freeze the connections of %s for the restore: %w", r.Describe(), err)
		}
	}
	return nil
}
