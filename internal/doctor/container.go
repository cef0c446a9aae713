// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// Subject is one process tree that is to be dumped.
type Subject struct {
	host      *Host
	tree      proc.Tree
	comm      map[int]string // of each process
	ns        *netns.Namespace
	shared    bool // whether ns is the one of the host
	container *container.Container
	set       config.Settings
	setErr    error
	conf      *confs // nil where it cannot be read
	fds       []descriptor
	fdErrs    []error
}

// Open opens the tree below root, in whatever container it is. The error wraps
// proc.ErrGone if root has ended.
func Open(h *Host, root proc.Ref) (*Subject, error) {
	s := &Subject{host: h, comm: map[int]string{}}
	var err error
	if s.tree, err = proc.OpenTree(root); err != nil {
		return nil, err
	}
	if s.ns, err = netns.OpenProcess(s.tree[0]); err != nil {
		s.tree.Close()
		return nil, err
	}
	if host, err := netns.OpenHost(); err == nil {
		s.shared = host.ID() == s.ns.ID()
		_ = host.Close()
	}
	if s.container, err = container.Running(strconv.Itoa(root.PID)); err != nil {
		s.container = &container.Container{} // a bundle that cannot be read says nothing
	}
	if c, err := config.Load(h.on(config.Path)); err != nil {
		s.setErr = err
	} else {
		s.set, s.setErr = c.For(s.container.Container)
	}
	if s.setErr != nil {
		s.set, _ = config.Default().For(s.container.Container)
	}
	if c, err := h.readConfs(); err == nil {
		s.conf = c
	}
	for _, p := range s.tree {
		if st, err := proc.ReadStat(p.PID); err == nil {
			s.comm[p.PID] = printable.Text(st.Comm)
		}
	}
	s.listDescriptors()
	return s, nil
}

// kernelThread is PF_KTHREAD of linux/sched.h.
const kernelThread = 0x00200000

// Roots returns the roots of the process trees in a network namespace: those whose
// parent is not in it.
func Roots(ns *netns.Namespace) ([]proc.Ref, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	inside := map[int]proc.Stat{}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		target, err := os.Readlink(filepath.Join(dir, "ns/net"))
		st, err2 := proc.ReadStat(pid)
		if err == nil && err2 == nil && target == ns.ID().String() && st.State != 'Z' && st.Flags&kernelThread == 0 {
			inside[pid] = st
		}
	}
	var roots []proc.Ref
	for pid, st := range inside {
		if _, child := inside[st.PPID]; !child {
			roots = append(roots, proc.Ref{PID: pid, Start: st.Start})
		}
	}
	slices.SortFunc(roots, func(a, b proc.Ref) int { return a.PID - b.PID })
	return roots, nil
}

// Close closes the tree and its namespace.
func (s *Subject) Close() {
	s.tree.Close()
	_ = s.ns.Close()
}

// name names a process of the tree in a message.
func (s *Subject) name(pid int) string { return fmt.Sprintf("pid %d (%s)", pid, s.comm[pid]) }

// root is the first process of the tree.
func (s *Subject) root() *proc.Process { return s.tree[0] }

// Container checks whether a dump of the tree will work, and what becomes of its network.
func Container(s *Subject) []Finding {
	return runAll(s, []check[*Subject]{
		{"machine", checkMachine},
		{"state", checkState},
		{"policy", checkPolicy},
		{"tasks", checkTasks},
		{"files", checkFiles},
		{"sockets", checkSockets},
		{"handshakes", checkHandshakes},
		{"network", checkNetwork},
		{"timers", checkTimers},
	})
}

// checkMachine says whether the machine is in order, of which netfreeze doctor without
// a target tells more.
func checkMachine(s *Subject) []Finding {
	if s.host.failing == nil {
		n := Count(Machine(s.host), Fails)
		s.host.failing = &n
	}
	if bad := *s.host.failing; bad > 0 {
		return []Finding{warn("this machine", "netfreeze doctor", "%d of its own checks fail", bad)}
	}
	return []Finding{ok("this machine", "none of its own checks fails")}
}

// checkState looks whether the tree is held or frozen already.
func checkState(s *Subject) (found []Finding) {
	records, err := record.Of(s.ns)
	if err != nil {
		found = append(found, warn(s.ns.ID().String(), "netfreeze doctor", "%v", err))
	}
	held := func(r *record.Record) bool {
		return r.Stopped && slices.ContainsFunc(s.tree.Refs(), func(p proc.Ref) bool { return slices.Contains(r.Tree, p) })
	}
	for _, r := range records {
		switch {
		case held(r):
			found = append(found, fails(s.name(s.root().PID), "netfreeze thaw "+r.ThawTarget(), "%s: a dump of it is refused", r.DescribeHold()))
		case r.Settling():
			found = append(found, warn(s.ns.ID().String(), "wait until it has ended", "a dump or a restore is under way there"))
		case r.Holds() || r.Waits():
			found = append(found, warn(s.ns.ID().String(), "netfreeze thaw "+r.ThawTarget(), "%s", r.DescribeHold()))
		}
	}
	if len(found) == 0 {
		return []Finding{ok(s.ns.ID().String(), "nothing is held or frozen there")}
	}
	return found
}

// checkPolicy says what becomes of the tree after a dump.
func checkPolicy(s *Subject) []Finding {
	if s.setErr != nil {
		return []Finding{fails(config.Path, "netfreeze config check", "every dump fails: %v", s.setErr)}
	}
	found := []Finding{ok("netfreeze.toml", "%s", describePolicy(s.set))}
	if file := s.container.Annotations[criuConfig]; file != "" {
		found = append(found, s.checkAnnotated(file))
	}
	return found
}

// checkAnnotated looks at the file that the container's annotation has CRIU read instead
// of the runtime's own.
func (s *Subject) checkAnnotated(file string) Finding {
	const remedy = "list our lines in it (netfreeze install --dry-run shows them), or take the annotation away"
	f, err := s.host.inspect(file)
	switch {
	case err != nil:
		return fails(file, "mend it, or take the annotation away", "the annotation %s names it, and it cannot be read: %v", criuConfig, err)
	case !f.Exists:
		return fails(file, remedy, "the annotation %s names it, and it does not exist", criuConfig)
	case !slices.ContainsFunc(f.Statements, isOurs):
		return fails(file, remedy, "the annotation %s has CRIU read it instead of the runtime's own file, and it does not list our hook: the dump is not frozen", criuConfig)
	}
	return ok(file, "the annotation %s names it, and it lists our hook", criuConfig)
}

// isGone reports whether err says that a process or a descriptor has gone meanwhile.
func isGone(err error) bool { return errors.Is(err, proc.ErrGone) || notThere(err) }
