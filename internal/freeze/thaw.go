// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Rollback takes a dump back: its tree's sockets leave repair mode (a CRIU that
// was killed leaves them in it), a killed CRIU's own lock goes, then the rules, and
// the tasks run on where they got our SIGSTOP. It returns how many sockets were in
// repair mode, and where the connections among them stand. The record stays if something fails, so that netfreeze thaw finds
// what is left.
func (f *Freeze) Rollback(tree proc.Tree) (repaired int, streams []tcp.Stream, err error) {
	repaired, streams, err = tcp.LeaveRepair(tree, f.Record.Reuse)
	err = errors.Join(err, f.RemoveCRIULock(), f.Thaw())
	if f.Record.Stopped {
		err = errors.Join(err, continueTasks(tree.Refs(), f.Record.StoppedBefore))
	}
	if err != nil {
		return repaired, streams, err
	}
	return repaired, streams, f.Forget()
}

// Thaw undoes what the records stand for, in this order: sockets out of repair
// mode, rules gone, tasks running. So no system call of the application fails,
// and not a byte is lost. It works also for what a killed settler left behind.
// The records are settled, see Settled. If somebody else needs a namespace frozen
// the error wraps a [*SharedError], and nothing is changed there.
//
// Each connection gets at most packets packets of a nudge; 0 sends none.
func (k *Keeper) Thaw(packets int, records ...*record.Record) error {
	unlock, err := take(records)
	if err != nil {
		return err
	}
	defer unlock()
	for len(records) > 0 {
		first := records[0]
		same := func(r *record.Record) bool { return r.NetNS == first.NetNS && r.Cookie == first.Cookie }
		var together, rest []*record.Record
		for _, r := range records {
			if same(r) {
				together = append(together, r)
			} else {
				rest = append(rest, r)
			}
		}
		if err := k.thawTogether(packets, together); err != nil {
			return err
		}
		records = rest
	}
	return nil
}

// thawTogether is Thaw for the records of one namespace.
func (k *Keeper) thawTogether(packets int, records []*record.Record) error {
	ns, err := find(records[0])
	if errors.Is(err, netns.ErrGone) || records[0].NetNS == (netns.ID{}) {
		return release(records) // the rules went with it
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	return lockedIfPossible(ns, func() error {
		if holder, _, _, err := siblings(ns, records); err != nil {
			return err
		} else if holder != nil && records[0].Scope == record.NetNS {
			return fmt.Errorf("%s cannot be thawed alone: %w", records[0].NetNS, &SharedError{holder})
		}
		var streams []tcp.Stream
		for _, r := range records {
			s, err := leaveRepair(r)
			if err != nil {
				return fmt.Errorf("take the sockets of %s out of repair mode: %w", r.Describe(), err)
			}
			keepClosed(s, r.InFlight)
			streams = append(streams, s...)
		}
		send := prepareNudge(ns, streams, packets, slices.ContainsFunc(records, func(r *record.Record) bool { return r.Quiet }))
		if err := k.removeRules(ns, records); err != nil {
			return err
		}
		send()
		if slices.ContainsFunc(records, func(r *record.Record) bool { return r.Quiet }) {
			tellPeers(ns, records...) // no nudge is sent for isolated tasks, and for others in the namespace
		}
		return release(records)
	})
}

func leaveRepair(r *record.Record) (streams []tcp.Stream, err error) {
	err = proc.EachLiving(r.Tree, func(some proc.Tree) error {
		_, found, err := tcp.LeaveRepair(some, r.Reuse)
		streams = append(streams, found...)
		return err
	})
	return streams, err
}

// prepareNudge prepares to nudge the peers of these connections, and our own
// kernel, so that nothing but sending is left to do after the thaw. What does not
// get out is repeated later by everybody's timers, so no error is reported.
//
// Quiet peers are told how large their windows are even if packets is 0.
func prepareNudge(ns *netns.Namespace, streams []tcp.Stream, packets int, quiet bool) (send func()) {
	if packets == 0 && !quiet {
		return func() {}
	}
	sender, err := nudge.Open(ns)
	if err != nil {
		return func() {}
	}
	all := nudge.Acks(nudge.Remote(streams), nil, 1)
	if packets > 0 {
		all = nudge.Plan(nudge.Remote(streams), packets, true)
	}
	return func() {
		_ = sender.Send(all, 0)
		sender.Close()
	}
}

// Receiving returns the connections of a namespace whose peers may send.
func Receiving(ns *netns.Namespace) ([]tcp.Tuple, error) {
	socks, err := netns.In(ns, tcp.List)
	if err != nil {
		return nil, err
	}
	return tcp.Outside(tcp.Connections(tcp.Receiving(socks))), nil
}

// removeRules removes the rules of records of one namespace. The caller has its lock.
func (k *Keeper) removeRules(ns *netns.Namespace, records []*record.Record) error {
	whole := slices.ContainsFunc(records, func(r *record.Record) bool { return r.Scope == record.NetNS })
	for _, r := range records {
		if r.Scope == record.NetNS {
			continue
		}
		if err := k.thawOwner(ns, r); err != nil {
			return err
		}
	}
	if !whole {
		return nil
	}
	isolated, err := ns.Isolate()
	if err != nil {
		return err
	}
	return k.endWhole(ns, func() error { return k.filter.ThawAll(isolated) }, records...)
}

// release lets the tasks of the records run on and removes the records.
func release(records []*record.Record) error {
	for _, r := range records {
		if r.Stopped {
			if err := continueTasks(r.Tree, r.StoppedBefore); err != nil {
				return fmt.Errorf("let the tasks of %s go on: %w", r.Describe(), err)
			}
		}
		if err := r.Remove(); err != nil {
			return err
		}
	}
	return nil
}

// continueTime is how long a task may take to run on after SIGCONT.
const continueTime = 5 * time.Second

// continueTasks lets stopped tasks run on, but for those that were stopped before. It
// makes sure that they do; the error names those that stay stopped.
func continueTasks(tasks, stoppedBefore []proc.Ref) error {
	tasks = slices.DeleteFunc(slices.Clone(tasks), func(p proc.Ref) bool { return slices.Contains(stoppedBefore, p) })
	err := proc.EachLiving(tasks, func(some proc.Tree) error { return some.Signal(unix.SIGCONT) })
	if err != nil {
		return err
	}
	deadline := time.Now().Add(continueTime)
	return proc.EachLiving(tasks, func(some proc.Tree) error {
		for {
			left, err := some.Stopped()
			if err != nil || len(left) == 0 {
				return err
			}
			if time.Now().After(deadline) {
				return code.New(code.StillStopped, fmt.Sprintf("%d tasks are still stopped %v after SIGCONT, pid %d among them (did somebody stop it again?)", len(left), continueTime, left[0].PID))
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// saveByHand saves a record that a command has changed, under its namespace's lock
// where there still is one.
func saveByHand(r *record.Record) error {
	ns, err := find(r)
	if errors.Is(err, netns.ErrGone) {
		return r.Save()
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	return locked(ns, r.Save)
}
