package hooks

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// endTime bounds the wait for tasks to end after SIGKILL.
const endTime = 10 * time.Second

// end ends stopped tasks without a packet: with the sockets in repair mode the
// kernel forgets them (tcp_close in net/ipv4/tcp.c) where it would send FIN or
// RST and keep them in FIN-WAIT-1 otherwise.
func end(r *record.Record, tree proc.Tree) error {
	if err := tcp.SilenceForGood(tree); err != nil {
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
// there is nothing left of it then. It waits a moment for that, also for a settler
// that has applied the policy and is about to add to the record; a transaction
// that takes longer is an error, since nobody else may interfere with it.
func Settled(r *record.Record) (*record.Record, error) {
	if r.Phase != record.Running && r.Phase != record.Committed && !r.Busy() {
		return r, nil
	}
	for deadline := time.Now().Add(settling); r.Busy(); time.Sleep(lookAgain) {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("a %s of %s is under way (CRIU is pid %d): wait until it has ended", r.Op, subject(r), r.CRIU.PID)
		}
	}
	now, err := record.Load(r.ID)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return now, err
}

// take locks the records against other commands and looks at them anew.
func take(records []*record.Record) (func(), error) {
	var locks []func()
	release := func() {
		for _, unlock := range locks {
			unlock()
		}
	}
	for _, r := range records {
		f, err := record.Lock(r.ID)
		if err != nil {
			release()
			return nil, err
		}
		locks = append(locks, func() { record.Unlock(r.ID, f) })
		now, err := record.Load(r.ID)
		if err != nil {
			release()
			return nil, fmt.Errorf("%s has changed meanwhile: %w", subject(r), err)
		}
		*r = *now
	}
	return release, nil
}

// Kill ends held trees silently. The freeze stays, as with policy kill. A
// record of anything but a hold is an error, and nothing is changed then. The
// records are settled.
func Kill(records ...*record.Record) error {
	release, err := take(records)
	if err != nil {
		return err
	}
	defer release()
	for _, r := range records {
		if r.Phase != record.Ended && r.Phase != record.Held && !r.Stopped {
			return fmt.Errorf("%s: only a held tree can be ended silently; nothing was changed", reason(r))
		}
	}
	for _, r := range records {
		tree := proc.OpenRefs(r.Tree)
		err := end(r, tree)
		tree.Close()
		if err != nil {
			return err
		}
		r.Phase, r.Stopped, r.Note = record.Ended, false, "ended silently"
		if err := r.Save(); err != nil {
			return err
		}
	}
	return nil
}

// Thaw undoes what the records stand for, in this order: sockets out of repair
// mode, rules gone, tasks running. So no system call of the application fails,
// and not a byte is lost. It works also for what a killed settler left behind.
// The records are settled, and of one target: all those of a network namespace,
// say. If somebody else needs the namespace frozen nothing is changed.
//
// Each connection gets at most packets packets of a nudge; 0 sends none.
func Thaw(packets int, records ...*record.Record) error {
	release, err := take(records)
	if err != nil {
		return err
	}
	defer release()
	for len(records) > 0 {
		same := slices.Clone(records[:1])
		var rest []*record.Record
		for _, r := range records[1:] {
			if r.NetNS == same[0].NetNS && r.Cookie == same[0].Cookie {
				same = append(same, r)
			} else {
				rest = append(rest, r)
			}
		}
		if err := thawSame(packets, same); err != nil {
			return err
		}
		records = rest
	}
	return nil
}

// thawSame is Thaw for the records of one namespace.
func thawSame(packets int, records []*record.Record) error {
	ns, err := findNetNS(records[0])
	if errors.Is(err, netns.ErrGone) || records[0].NetNS == (netns.ID{}) {
		return letGo(records) // the rules went with it
	}
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // only the rules mattered
	unlock, err := record.LockNetNS(ns)
	if err != nil {
		return err
	}
	defer unlock()
	if holder, _, _, err := siblings(ns, records); err != nil {
		return err
	} else if holder != nil && records[0].Scope == record.NetNS {
		return fmt.Errorf("%s cannot be thawed alone: %w", records[0].NetNS, &heldError{holder})
	}
	var streams []tcp.Stream
	for _, r := range records {
		tree := proc.OpenRefs(r.Tree)
		_, s, err := tcp.Restore(tree, tcp.Reuse(r.Reuse))
		tree.Close()
		if err != nil {
			return fmt.Errorf("take the sockets of %s out of repair mode: %w", subject(r), err)
		}
		streams = append(streams, s...)
	}
	send := func() error { return nil }
	if packets > 0 {
		if line, err := nudge.Open(ns); err == nil {
			defer line.Close()
			all := nudges(abroad(streams), packets, true)
			send = func() error { return line.Send(all, 0) }
		}
	}
	if err := removeRules(ns, records); err != nil {
		return err
	}
	_ = send() // what does not get out is repeated later
	return letGo(records)
}

// removeRules removes those of records of one namespace.
func removeRules(ns *netns.Namespace, records []*record.Record) error {
	whole := false
	for _, r := range records {
		if r.Scope == record.NetNS {
			whole = true
		} else if err := thawOwner(ns, r); err != nil {
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
	return endWhole(ns, func() error { return rules.ThawAll(isolated) }, records...)
}

// letGo lets the tasks go on and forgets the records.
func letGo(records []*record.Record) error {
	for _, r := range records {
		if r.Stopped {
			tree := proc.OpenRefs(r.Tree)
			err := tree.Signal(unix.SIGCONT)
			tree.Close()
			if err != nil {
				return fmt.Errorf("let the tasks of %s go on: %w", subject(r), err)
			}
		}
		if err := r.Remove(); err != nil {
			return err
		}
	}
	return nil
}
