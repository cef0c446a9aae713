package hooks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// leftovers finds namespaces with a network lock of CRIU's own although no CRIU
// runs: one that was killed has left it there, and nothing ends it.
func leftovers() ([]Status, error) {
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
		locks, err := rules.CRIULocks(ns)
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
func RemoveLeftovers(ns *netns.Namespace) ([]string, error) {
	isolated, err := ns.Isolate()
	if err != nil {
		return nil, err
	}
	unlock, err := record.LockNetNS(ns)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if criuRuns() {
		return nil, errors.New("a CRIU is running, and its lock cannot be told from a leftover: try again when it has ended; nothing was changed")
	}
	locks, err := rules.CRIULocks(ns)
	if err != nil {
		return nil, err
	}
	return locks, rules.RemoveCRIULocks(isolated, nil)
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
