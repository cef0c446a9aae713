package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Tree is a process tree, its root first.
type Tree []*Process

// OpenTree takes hold of root and all its descendants, found as CRIU finds them
// (/proc/PID/task/TID/children, criu/seize.c). While the tasks run the answer
// may miss a child that is born meanwhile; while CRIU holds them it is exact.
func OpenTree(root Ref) (Tree, error) {
	p, err := root.Open()
	if err != nil {
		return nil, err
	}
	tree := Tree{p}
	for i := 0; i < len(tree); i++ {
		for _, pid := range children(tree[i].PID) {
			c, err := Open(pid)
			if errors.Is(err, ErrGone) {
				continue
			}
			if err != nil {
				tree.Close()
				return nil, err
			}
			tree = append(tree, c)
		}
	}
	return tree, nil
}

// OpenRefs takes hold of those of the processes that are still there.
func OpenRefs(refs []Ref) Tree {
	var tree Tree
	for _, r := range refs {
		if p, err := r.Open(); err == nil {
			tree = append(tree, p)
		}
	}
	return tree
}

// children lists the children of all threads of pid.
func children(pid int) []int {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var pids []int
	for _, t := range tasks {
		data, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(data)) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// Refs returns the identities, to be written down.
func (t Tree) Refs() []Ref {
	refs := make([]Ref, len(t))
	for i, p := range t {
		refs[i] = p.Ref
	}
	return refs
}

// Close lets go of all processes.
func (t Tree) Close() {
	for _, p := range t {
		p.Close()
	}
}

// Signal sends sig to every process of the tree, the root first, and reports
// all failures; processes that have ended are none.
func (t Tree) Signal(sig unix.Signal) error {
	var errs []error
	for _, p := range t {
		errs = append(errs, p.Signal(sig))
	}
	return errors.Join(errs...)
}

// Ended waits at most d until all have ended and returns those that have not.
func (t Tree) Ended(d time.Duration) Tree {
	deadline := time.Now().Add(d)
	var left Tree
	for _, p := range t {
		if !p.Ended(time.Until(deadline)) {
			left = append(left, p)
		}
	}
	return left
}
