// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/quiet"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// The state directory can be lost, and a record damaged, while a tree is held. What is
// to be undone is then found from the kernel alone: our rules, sockets in repair mode,
// and tasks that are stopped.

// Unrecorded is what was undone without a record.
type Unrecorded struct {
	Thawed    bool // there were rules of ours
	Repaired  int  // sockets that were in repair mode
	Continued int  // tasks that were stopped
}

// ThawUnrecorded undoes what was done to a namespace that no record describes: the
// sockets of its processes leave repair mode, the rules go, and the tasks of the trees
// whose sockets were in repair mode run on. A stopped task of which cannot be told who
// has stopped it is left alone, and is an error that names it.
func (k *Keeper) ThawUnrecorded(ns *netns.Namespace) (done Unrecorded, err error) {
	err = lockedIfPossible(ns, func() error {
		if err := unrecorded(ns); err != nil {
			return err
		}
		tasks, err := inhabitants(ns)
		if err != nil {
			return err
		}
		var held []proc.Ref // with sockets in repair mode
		err = proc.EachLiving(tasks, func(some proc.Tree) error {
			for _, p := range some {
				n, _, err := tcp.LeaveRepair(proc.Tree{p}, nil)
				if err != nil {
					return fmt.Errorf("take the sockets of pid %d out of repair mode: %w", p.PID, err)
				}
				if done.Repaired += n; n > 0 {
					held = append(held, p.Ref)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		st, err := k.filter.Look(ns)
		if err != nil {
			return err
		}
		if done.Thawed = st.Backend != ""; done.Thawed {
			isolated, err := ns.Isolate()
			if err != nil {
				return err
			}
			if err := k.filter.ThawAll(isolated); err != nil {
				return err
			}
			tellPeers(ns)
		}
		return done.continueHeld(tasks, held)
	})
	return done, err
}

// tellPeers makes the connections that the records are about tell their peers how large
// their windows are, as these may have been made quiet: all of a whole namespace, which is
// meant where there is no record. Those of peers with data in flight stay as they are, see
// answer's InFlight. Where it fails the peers' probes ask for it.
func tellPeers(ns *netns.Namespace, records ...*record.Record) {
	conns, err := Receiving(ns)
	if err != nil {
		return
	}
	whole, some := len(records) == 0, tcp.Set{}
	for _, r := range records {
		conns = tcp.Without(conns, r.InFlight)
		whole = whole || r.Scope == record.NetNS
		for _, t := range r.Conns {
			some[t] = struct{}{}
		}
	}
	if !whole {
		conns = slices.DeleteFunc(conns, func(t tcp.Tuple) bool { return !some.Has(t) })
	}
	_ = quiet.Ask(ns, conns)
}

// unrecorded refuses a namespace of which a record does tell something.
func unrecorded(ns *netns.Namespace) error {
	of, err := record.Of(ns)
	if err != nil {
		return err
	}
	for _, r := range of {
		if r.Scope == record.NetNS && (r.Holds() || r.Waits() || r.Undoable()) {
			return code.New(code.AlreadyHeld, fmt.Sprintf("%s in the same namespace, and the target is none of its tasks: thaw that, with netfreeze thaw %s; nothing was changed", r.DescribeHold(), r.ThawTarget()))
		}
	}
	return nil
}

// continueHeld lets the stopped tasks run on that are of one tree with a held one.
func (u *Unrecorded) continueHeld(tasks, held []proc.Ref) error {
	var ours, unknown []proc.Ref
	for _, p := range tasks {
		st, err := proc.ReadStat(p.PID)
		if errors.Is(err, proc.ErrGone) || err == nil && (st.Start != p.Start || st.State != 'T') {
			continue
		}
		if err != nil {
			return err
		}
		if related(p, held) {
			ours = append(ours, p)
		} else {
			unknown = append(unknown, p)
		}
	}
	if err := continueTasks(ours, nil); err != nil {
		return err
	}
	u.Continued = len(ours)
	if len(unknown) > 0 && (u.Thawed || u.Repaired > 0) {
		return code.New(code.StillStopped, fmt.Sprintf("pid %d is stopped, and no record says by whom: if a dump has left it held, continue it and its descendants with kill -CONT (%d such tasks)", unknown[0].PID, len(unknown)))
	}
	return nil
}

// related reports whether a process is, or descends from, or is an ancestor of, one of
// the others.
func related(p proc.Ref, others []proc.Ref) bool {
	up := ancestors(p.PID)
	return slices.ContainsFunc(others, func(o proc.Ref) bool {
		return o == p || slices.Contains(up, o.PID) || slices.Contains(ancestors(o.PID), p.PID)
	})
}

// ancestors returns the parent of a process, its parent, and so on.
func ancestors(pid int) (up []int) {
	for {
		st, err := proc.ReadStat(pid)
		if err != nil || st.PPID <= 1 || len(up) > 1<<10 {
			return up
		}
		pid = st.PPID
		up = append(up, pid)
	}
}

// inhabitants returns the processes of a network namespace that only containers have.
// In the host's namespace, and in our own, it is nobody: there only a record can say
// which of the processes are meant.
func inhabitants(ns *netns.Namespace) ([]proc.Ref, error) {
	var refused *netns.RefusedError
	if _, err := ns.Isolate(); errors.As(err, &refused) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []proc.Ref
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		st, err := proc.ReadStat(pid)
		if err != nil || st.State == 'Z' {
			continue
		}
		own, err := netns.OpenPID(pid, st.Start)
		if err != nil {
			continue // it has ended
		}
		if own.ID() == ns.ID() {
			found = append(found, proc.Ref{PID: pid, Start: st.Start})
		}
		_ = own.Close()
	}
	return found, nil
}
