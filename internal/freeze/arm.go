// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// Prepare puts the unarmed rules of a whole namespace in place, so that Arm has
// little to do. For holdSYN the kernel drops segments that open a connection.
func (f *Freeze) Prepare(holdSYN time.Duration) error {
	err := f.locked(func() error {
		return f.tryRules(func(r rules.Freezer) error { return r.Prepare(min(holdSYN, f.ttl)) })
	})
	if err != nil {
		return fmt.Errorf("put the rules in place: %w", err)
	}
	return nil
}

// Arm drops packets from now on, or counts the time to live anew. It never ends a
// freeze sooner that was there before.
func (f *Freeze) Arm() error {
	err := f.locked(func() error {
		ttl := max(f.ttl, time.Until(f.found.until))
		var err error
		if f.whole != nil {
			err = f.tryRules(func(r rules.Freezer) error { return r.Freeze(ttl) })
		} else {
			err = f.conns.Freeze(f.Record.Conns, ttl)
		}
		if err != nil {
			return err
		}
		f.Record.ExpireIn(ttl)
		if f.Record.Op == record.Restore {
			return f.unseal()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("freeze %s: %w", f.ns, err)
	}
	f.stage, f.until = armed, time.Time{}
	if f.since.IsZero() {
		f.since = time.Now()
	}
	return nil
}

// ShutWindows makes the segments that leave on conns, and on no others, offer a window of
// 0 for ttl, see [rules.Windows]. A freeze that is lifted or thawed opens them again.
func (f *Freeze) ShutWindows(conns []tcp.Tuple, ttl time.Duration) error {
	return f.locked(func() error {
		if f.whole != nil {
			return f.whole.ShutWindows(conns, ttl)
		}
		if err := f.conns.Freeze(nil, f.ttl); err != nil { // puts the rules in place
			return err
		}
		return f.conns.ShutWindows(conns, ttl)
	})
}

// ArmTree freezes the connections of the tree, beside those that the record has;
// it is Arm for scope connections. The tasks' descriptors are looked at only if
// some process has a connection that is not frozen yet, since that takes longer
// than all the rest. The record's connections are the tree's then.
func (f *Freeze) ArmTree(tree proc.Tree) error {
	socks, err := f.Sockets()
	if err != nil {
		return err
	}
	conns := tcp.Connections(socks)
	if len(tcp.Without(conns, f.Record.Conns)) > 0 {
		inodes, err := tcp.Inodes(tree)
		if err != nil {
			return fmt.Errorf("find the tasks' sockets: %w", err)
		}
		conns = tcp.Owned(socks, inodes)
	}
	f.Record.Conns = conns
	return f.Arm()
}

// Lift gives the network back at once, by the socket that is open: somebody
// waits. Rules that drop nothing may be left, which Thaw removes. Where a sibling
// needs the namespace frozen it stays so, which is no error; see Lifted.
func (f *Freeze) Lift() error {
	if f.Lifted() {
		return nil
	}
	if f.whole == nil || f.found.mixed {
		return f.Thaw()
	}
	err := f.lockedIfPossible(func() error { return f.endWhole(f.ns, f.whole.Lift, f.Record) })
	if err != nil {
		return f.Thaw() // which says what is wrong
	}
	f.setLifted(lifted)
	return nil
}

// Thaw ends the freeze and removes its rules, unless somebody else still needs the
// namespace frozen: containers of a pod share it. It may be called again at any
// time.
func (f *Freeze) Thaw() error {
	if f.ns == nil || f.stage == unfrozen {
		return nil
	}
	return f.lockedIfPossible(f.thaw)
}

// thaw is Thaw under the namespace's lock.
func (f *Freeze) thaw() error {
	err := f.removeRules()
	var shared *SharedError
	switch {
	case errors.As(err, &shared):
		f.log.Warn(code.New(code.AlreadyHeld, fmt.Sprintf("%s stays frozen: %s", f.ns, shared)))
		f.sealAgain()
		return nil
	case err != nil:
		return fmt.Errorf("thaw %s: %w", f.ns, err)
	}
	f.setLifted(unfrozen)
	return nil
}

// removeRules takes away the rules, those of a whole namespace whoever made them.
func (f *Freeze) removeRules() error {
	if f.conns != nil {
		return f.conns.Thaw()
	}
	isolated, err := f.isolate()
	if err != nil {
		return err
	}
	return f.endWhole(f.ns, func() error { return f.filter.ThawAll(isolated) }, f.Record)
}

// setLifted notes that the freeze has ended, and tells how long it lasted.
func (f *Freeze) setLifted(s stage) {
	if f.stage == armed && !f.since.IsZero() {
		f.until = time.Now()
		f.log.Infof("thawed %s after %v", f.ns.ID(), f.until.Sub(f.since).Round(time.Microsecond))
	}
	f.stage = s
}

// Forget thaws and removes the record; if the thaw fails the record stays, so that
// netfreeze thaw finds it.
func (f *Freeze) Forget() error {
	if f.ns == nil {
		return f.Record.Remove()
	}
	return f.lockedIfPossible(func() error {
		if f.stage != unfrozen {
			if err := f.thaw(); err != nil {
				return err
			}
		}
		return f.Record.Remove()
	})
}

// Abandon removes the record and leaves the freeze as it is: it was there before.
func (f *Freeze) Abandon() error { return f.lockedIfPossible(f.Record.Remove) }

// isolate makes sure again that the namespace is neither the host's nor CRIU's,
// which may be dead by now.
func (f *Freeze) isolate() (*netns.Isolated, error) {
	var others []netns.ID
	if own, err := netns.OpenPID(f.Record.CRIU.PID, f.Record.CRIU.Start); err == nil {
		others = append(others, own.ID())
		_ = own.Close()
	}
	return f.ns.Isolate(others...)
}
