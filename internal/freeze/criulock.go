// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// CRIU has a network lock of its own, which it leaves behind when it is killed. It
// is not ours, but it cuts the container off as a freeze would, and nobody else is
// left to take it away.

// RemoveCRIULock removes the lock that this transaction's CRIU left in the
// namespace when it was killed. In scope connections the namespace is not the
// tree's alone, so nothing is done there.
func (f *Freeze) RemoveCRIULock() error {
	if f.ns == nil || f.Record.Scope != record.NetNS || f.Record.CRIU.Alive() {
		return nil
	}
	isolated, err := f.isolate()
	if err == nil && f.alone() {
		err = f.lockedIfPossible(func() error { return f.filter.RemoveCRIULocks(isolated, f.Record.ForeignLocks) })
	}
	if err != nil {
		return fmt.Errorf("remove the network lock of a CRIU that was killed: %w", err)
	}
	return nil
}

// alone reports whether no other transaction is at work in the namespace, whose
// CRIU might have a lock there.
func (f *Freeze) alone() bool {
	records, err := record.Of(f.ns)
	return err == nil && !slices.ContainsFunc(records, func(r *record.Record) bool {
		return r.ID != f.Record.ID && r.Settling()
	})
}

// leftovers finds namespaces with a network lock of CRIU's own although no CRIU
// runs: one that was killed has left it there, and nothing ends it.
func (k *Keeper) leftovers() ([]Status, error) {
	if criuRuns() {
		return nil, nil
	}
	all, err := netns.All()
	if err != nil {
		return nil, err
	}
	var list []Status
	var errs []error
	for _, ns := range all {
		locks, err := k.filter.CRIULocks(ns)
		errs = append(errs, err)
		if len(locks) > 0 {
			list = append(list, Status{
				ID: "criu", NetNS: ns.ID().String(), Path: netns.Mounted(ns.ID()), Scope: string(record.NetNS),
				State: "criu-leftover", Note: fmt.Sprintf("lock of a killed CRIU: %s (netfreeze thaw --criu-leftovers '%s')", strings.Join(locks, ", "), ns.ID()),
			})
		}
		_ = ns.Close()
	}
	return list, errors.Join(errs...)
}

// RemoveLeftovers removes the locks that killed CRIUs have left in a namespace,
// and returns their names. While any CRIU runs, on this node and whatever for,
// nobody can tell whose they are, so that is an error.
func (k *Keeper) RemoveLeftovers(ns *netns.Namespace) (locks []string, err error) {
	isolated, err := ns.Isolate()
	if err != nil {
		return nil, err
	}
	err = lockedIfPossible(ns, func() error {
		if criuRuns() {
			return code.New(code.CRIULock, "a CRIU is running, and its lock cannot be told from a leftover: try again when it has ended; nothing was changed")
		}
		if locks, err = k.filter.CRIULocks(ns); err != nil {
			return err
		}
		return k.filter.RemoveCRIULocks(isolated, nil)
	})
	return locks, err
}

// criuRuns reports whether there is any process of CRIU.
func criuRuns() bool {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if st, err := proc.ReadStat(pid); err == nil && st.Comm == "criu" && st.State != 'Z' {
			return true
		}
	}
	return false
}
