package freeze

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Rollback takes a dump back: its tree's sockets leave repair mode (a CRIU that
// was killed leaves them in it), a killed CRIU's own lock goes, then the rules, and
// the tasks run on where they got our SIGSTOP. It returns how many sockets were in
// repair mode. The record stays if something fails, so that netfreeze thaw finds
// what is left.
func (f *Freeze) Rollback(tree proc.Tree) (repaired int, err error) {
	repaired, _, err = tcp.LeaveRepair(tree, f.Record.Reuse)
	err = errors.Join(err, f.RemoveCRIULock(), f.Thaw())
	if f.Record.Stopped {
		err = errors.Join(err, tree.Signal(unix.SIGCONT))
	}
	if err != nil {
		return repaired, err
	}
	return repaired, f.Forget()
}

// Thaw undoes what the records stand for, in this order: sockets out of repair
// mode, rules gone, tasks running. So no system call of the application fails,
// and not a byte is lost. It works also for what a killed settler left behind.
// The records are settled, see Settled. If somebody else needs a namespace frozen
// the error wraps a [*SharedError], and nothing is changed there.
//
// Each connection gets at most packets packets of a nudge; 0 sends none.
func (k *Keeper) Thaw(packets int, records ...*record.Record) error {
	release, err := take(records)
	if err != nil {
		return err
	}
	defer release()
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
		return continueTasks(records) // the rules went with it
	}
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // only the rules mattered
	return locked(ns, func() error {
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
			streams = append(streams, s...)
		}
		send := prepareNudge(ns, streams, packets)
		if err := k.removeRules(ns, records); err != nil {
			return err
		}
		send()
		return continueTasks(records)
	})
}

func leaveRepair(r *record.Record) ([]tcp.Stream, error) {
	tree, err := proc.OpenLiving(r.Tree)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	_, streams, err := tcp.LeaveRepair(tree, r.Reuse)
	return streams, err
}

// prepareNudge prepares to nudge the peers of these connections, and our own
// kernel, so that nothing but sending is left to do after the thaw. What does not
// get out is repeated later by everybody's timers, so no error is reported.
func prepareNudge(ns *netns.Namespace, streams []tcp.Stream, packets int) (send func()) {
	if packets == 0 {
		return func() {}
	}
	sender, err := nudge.Open(ns)
	if err != nil {
		return func() {}
	}
	all := nudge.Plan(nudge.Remote(streams), packets, true)
	return func() {
		_ = sender.Send(all, 0)
		sender.Close()
	}
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

// continueTasks lets the tasks run on and removes the records.
func continueTasks(records []*record.Record) error {
	for _, r := range records {
		if r.Stopped {
			tree, err := proc.OpenLiving(r.Tree)
			if err == nil {
				err = tree.Signal(unix.SIGCONT)
				tree.Close()
			}
			if err != nil {
				return fmt.Errorf("let the tasks of %s go on: %w", r.Describe(), err)
			}
		}
		if err := r.Remove(); err != nil {
			return err
		}
	}
	return nil
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
	defer ns.Close() //nolint:errcheck // only the record mattered
	return locked(ns, r.Save)
}

// ThawUnrecorded removes a freeze of a whole namespace that no record describes,
// and reports whether there was one.
func (k *Keeper) ThawUnrecorded(ns *netns.Namespace) (was bool, err error) {
	err = locked(ns, func() error {
		st, err := k.filter.Look(ns)
		if err != nil || st.Backend == "" {
			return err
		}
		isolated, err := ns.Isolate()
		if err != nil {
			return err
		}
		was = true
		return k.filter.ThawAll(isolated)
	})
	return was, err
}
