// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"net/netip"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// A guard drops the resets that come from an address, see rules.Guard. It is no
// freeze, and has no record, but changes a namespace's rules under the same lock.

// Guard guards an address for ttl in the network namespace of the calling program.
func Guard(addr netip.Addr, ttl time.Duration) error {
	return own(locked, func(ns *netns.Namespace) error { return rules.GuardAddress(ns, addr, ttl) })
}

// Unguard ends the guard of an address. It is no error if there is none.
func Unguard(addr netip.Addr) error {
	return own(lockedIfPossible, func(ns *netns.Namespace) error { return rules.Unguard(ns, addr) })
}

// Guards returns the guards in force, the next one to end first, and removes the
// rules when none is left.
func Guards() (all []rules.Guard, err error) {
	err = own(lockedIfPossible, func(ns *netns.Namespace) (err error) {
		all, err = rules.Guards(ns)
		return err
	})
	return all, err
}

// own calls change with the calling program's namespace, which lock locks.
func own(lock locker, change func(*netns.Namespace) error) error {
	ns, err := netns.OpenSelf()
	if err != nil {
		return err
	}
	defer ns.Close()
	return lock(ns, func() error { return change(ns) })
}

// guardStatus lists the guards for netfreeze status.
func guardStatus() ([]Status, error) {
	all, err := Guards()
	if len(all) == 0 {
		return nil, err
	}
	ns, err := netns.OpenSelf()
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var list []Status
	for _, g := range all {
		list = append(list, Status{
			ID: "guard", NetNS: ns.ID().String(), Address: g.Address.String(), Scope: "resets", State: "guard",
			Backend: backend.NFTables, LeftSeconds: g.Left.Seconds(),
			Note: "RST from this address is dropped; netfreeze guard --off " + g.Address.String() + " ends that",
		})
	}
	return list, nil
}
