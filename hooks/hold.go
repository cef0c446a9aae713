package hooks

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/netns"
	"github.com/criu-netfreeze/criu-netfreeze/proc"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
	"github.com/criu-netfreeze/criu-netfreeze/state"
	"github.com/criu-netfreeze/criu-netfreeze/tcp"
)

// endTime bounds the wait for tasks to end after SIGKILL.
const endTime = 10 * time.Second

// end ends stopped tasks without a packet: with the sockets in repair mode the
// kernel forgets them (tcp_close in net/ipv4/tcp.c) where it would send FIN or
// RST and keep them in FIN-WAIT-1 otherwise.
func end(r *state.Record, tree proc.Tree) error {
	if _, err := tcp.Silence(tree); err != nil {
		return fmt.Errorf("switch the sockets of %s to repair mode: %w", subject(r), err)
	}
	if err := tree.Signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("end the tasks of %s: %w", subject(r), err)
	}
	if left := tree.Ended(endTime); len(left) > 0 {
		return fmt.Errorf("%d tasks of %s have not ended %v after SIGKILL, pid %d among them (state D in ps?)", len(left), subject(r), endTime, left[0].PID)
	}
	return nil
}

// settling is how long a command waits for a transaction that is under way: one
// that CRIU has just finished takes a moment to settle.
const settling = 5 * time.Second

// Settled returns the record as it is once its transaction is over, or nil if
// there is nothing left of it then. It waits a moment for that; a transaction
// that takes longer is an error, since nobody else may interfere with it.
func Settled(r *state.Record) (*state.Record, error) {
	for deadline := time.Now().Add(settling); r.Settling(); time.Sleep(lookAgain) {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("a %s of %s is under way (CRIU is pid %d): wait until it has ended", r.Op, subject(r), r.CRIU.PID)
		}
	}
	now, err := state.Load(r.ID)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return now, err
}

// Kill ends the held tree of a settled record silently. The freeze stays, as
// with policy kill. A record of anything but a hold is an error, and nothing is
// changed then.
func Kill(r *state.Record) error {
	if r.Phase == state.Ended {
		return nil
	}
	if r.Phase != state.Held && !r.Stopped {
		return fmt.Errorf("%s: only a held tree can be ended silently; nothing was changed", reason(r))
	}
	tree := proc.OpenRefs(r.Tree)
	defer tree.Close()
	if err := end(r, tree); err != nil {
		return err
	}
	r.Phase, r.Stopped, r.Note = state.Ended, false, "ended silently"
	return r.Save()
}

// Thaw undoes what the records stand for, in this order: sockets out of repair
// mode, rules gone, tasks running. So no system call of the application fails,
// and not a byte is lost. It works also for what a killed settler left behind.
// The records are settled, and of one target: all those of a network namespace,
// say.
//
// Each connection gets at most packets packets of a nudge; 0 sends none.
func Thaw(packets int, records ...*state.Record) error {
	streams := make([][]tcp.Stream, len(records))
	for i, r := range records {
		tree := proc.OpenRefs(r.Tree)
		_, s, err := tcp.Restore(tree, r.Reuse)
		tree.Close()
		if err != nil {
			return fmt.Errorf("take the sockets of %s out of repair mode: %w; nothing was thawed", subject(r), err)
		}
		streams[i] = abroad(s)
	}
	for i, r := range records {
		if err := lift(r, records, streams[i], packets); err != nil {
			return err
		}
		if err := release(r); err != nil {
			return err
		}
	}
	return nil
}

// release lets the tasks go on and forgets the record.
func release(r *state.Record) error {
	if r.Stopped {
		tree := proc.OpenRefs(r.Tree)
		defer tree.Close()
		if err := tree.Signal(unix.SIGCONT); err != nil {
			return fmt.Errorf("let the tasks of %s go on: %w", subject(r), err)
		}
	}
	return r.Remove()
}

// lift removes a record's rules, if nobody but the records of ours needs them,
// and nudges its connections.
func lift(r *state.Record, ours []*state.Record, streams []tcp.Stream, packets int) error {
	if r.NetNS == (netns.ID{}) {
		return nil
	}
	ns, err := findNetNS(r)
	if errors.Is(err, netns.ErrGone) {
		return nil // and the rules with it
	}
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // only the rules mattered
	unlock, err := state.LockNetNS(ns)
	if err != nil {
		return err
	}
	defer unlock()
	if r.Scope == state.Connections {
		err = thawOwner(ns, r)
	} else {
		err = liftWhole(ns, r, ours)
	}
	if err == nil && packets > 0 {
		_, _ = nudge(ns, streams, packets, true) // what does not get out is repeated later
	}
	return err
}

// liftWhole is lift in scope netns.
func liftWhole(ns *netns.Namespace, r *state.Record, ours []*state.Record) error {
	other, err := holder(append([]*state.Record{r}, ours...)...)
	if err != nil {
		return err
	}
	if other != nil {
		return fmt.Errorf("%s in %s as well: thaw that first, or both with netfreeze thaw '%s'", reason(other), r.NetNS, r.NetNS)
	}
	isolated, err := ns.Isolate()
	if err != nil {
		return err
	}
	return rules.ThawAll(isolated)
}
