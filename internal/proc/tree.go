// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// Tree is a process tree, its root first.
type Tree []*Process

// OpenTree opens root and all its descendants, which it finds as CRIU does
// (/proc/PID/task/TID/children, criu/seize.c). While the tasks run, it may miss a
// child that is forked meanwhile; while CRIU holds them, it finds them all. The
// error wraps ErrGone if root has ended; descendants that have ended are left out.
func OpenTree(root Ref) (Tree, error) {
	p, err := root.Open()
	if err != nil {
		return nil, err
	}
	tree := Tree{p}
	for i := 0; i < len(tree); i++ {
		pids, err := children(fmt.Sprintf("/proc/%d/task", tree[i].PID))
		if err != nil {
			tree.Close()
			return nil, fmt.Errorf("find the children of pid %d: %w", tree[i].PID, err)
		}
		for _, pid := range pids {
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

// OpenLiving opens those of the processes that have not ended. On an error it
// opens none.
func OpenLiving(refs []Ref) (Tree, error) {
	var tree Tree
	for _, r := range refs {
		p, err := r.Open()
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			tree.Close()
			return nil, err
		}
		tree = append(tree, p)
	}
	return tree, nil
}

// children returns the children of all threads of a process, whose directory
// /proc/PID/task is dir. Threads that have ended have none.
func children(dir string) ([]int, error) {
	threads, err := os.ReadDir(dir)
	if hasEnded(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, t := range threads {
		thread := dir + "/" + t.Name()
		data, err := readFile(thread + "/children")
		if hasEnded(err) {
			if _, err := os.Lstat(thread); err == nil {
				return nil, code.New(code.Kernel, fmt.Sprintf("%s has no file children: the kernel was built without CONFIG_PROC_CHILDREN", thread))
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		for f := range strings.FieldsSeq(string(data)) {
			n, err := strconv.Atoi(f)
			if err != nil {
				return nil, fmt.Errorf("read %s/children: %w", thread, err)
			}
			pids = append(pids, n)
		}
	}
	return pids, nil
}

// hasEnded reports whether err, of a file below /proc/PID, says that the process
// or thread has ended.
func hasEnded(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// Refs returns the identities of the processes, which can be stored.
func (t Tree) Refs() []Ref {
	refs := make([]Ref, len(t))
	for i, p := range t {
		refs[i] = p.Ref
	}
	return refs
}

// Close closes all processes; it does not affect them.
func (t Tree) Close() {
	for _, p := range t {
		p.Close()
	}
}

// Signal sends sig to every process of the tree, the root first. A failure does not
// stop the others from getting it; the error joins all failures. It is no error if
// a process has ended.
func (t Tree) Signal(sig unix.Signal) error {
	var errs []error
	for _, p := range t {
		errs = append(errs, p.Signal(sig))
	}
	return errors.Join(errs...)
}

// Ended waits until all have ended, at most for d, and returns those that have not.
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
