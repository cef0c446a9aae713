// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// limited makes this test binary run one test in a child process in which few files
// may be open.
const limited = "NETFREEZE_TEST_FEW_FILES"

// inFewFiles runs the calling test once more in a child process in which at most n
// files may be open, and returns false there.
func inFewFiles(t *testing.T, n uint64) bool {
	t.Helper()
	if os.Getenv(limited) != "" {
		limit := unix.Rlimit{Cur: n, Max: n}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		return false
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), limited+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("with %d files: %v\n%s", n, err, out)
	}
	return true
}

// TestEachLivingManyTasks stops and resumes 200 tasks, every one of them, while no
// more than 40 files may be open.
func TestEachLivingManyTasks(t *testing.T) {
	if inFewFiles(t, 40) {
		return
	}
	const tasks = 200
	var refs []Ref
	root := start(t, "sh", "-c", fmt.Sprintf("for i in $(seq %d); do sleep 600 & done; wait", tasks))
	t.Cleanup(func() { // the shell's children
		if err := EachLiving(refs, func(tree Tree) error { return tree.Signal(unix.SIGKILL) }); err != nil {
			t.Error(err)
		}
	})
	poll(t, "the tasks are not there", func() bool {
		pids, err := children(fmt.Sprintf("/proc/%d/task", root.Process.Pid))
		return err == nil && len(pids) == tasks
	})
	pids, err := children(fmt.Sprintf("/proc/%d/task", root.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		st, err := ReadStat(pid)
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, Ref{PID: pid, Start: st.Start})
	}
	if tree, err := OpenLiving(refs); !errors.Is(err, unix.EMFILE) {
		tree.Close()
		t.Fatalf("the limit does not bite: %v", err)
	}
	inState := func(state byte) (n int) {
		for _, r := range refs {
			if st, err := ReadStat(r.PID); err == nil && st.State == state {
				n++
			}
		}
		return n
	}
	for _, step := range []struct {
		signal unix.Signal
		state  byte
	}{{unix.SIGSTOP, 'T'}, {unix.SIGCONT, 'S'}} {
		seen := 0
		err := EachLiving(refs, func(tree Tree) error {
			seen += len(tree)
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0) // there is room for a socket's duplicate
			if err == nil {
				err = errors.Join(unix.Close(fd), tree.Signal(step.signal))
			}
			return err
		})
		if err != nil || seen != tasks {
			t.Errorf("%v reached %d tasks of %d: %v", step.signal, seen, tasks, err)
		}
		poll(t, fmt.Sprintf("after %v not all tasks are in state %c", step.signal, step.state),
			func() bool { return inState(step.state) == tasks })
	}
}

// TestEachLiving leaves out what has ended, hides no other error, and reaches every
// process even if do fails for the first.
func TestEachLiving(t *testing.T) {
	p, err := Open(start(t, "sleep", "60").Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	reused, none := Ref{PID: p.PID, Start: p.Start + 1}, Ref{PID: 1 << 30}
	list := []Ref{reused, p.Ref, none}
	list = append(list, slices.Repeat([]Ref{p.Ref}, 2*batch)...)
	calls, seen, failure := 0, 0, errors.New("it failed")
	err = EachLiving(list, func(tree Tree) error {
		calls++
		seen += len(tree)
		return failure
	})
	if calls != 3 || seen != 2*batch+1 || !errors.Is(err, failure) {
		t.Errorf("%d processes in %d calls: %v", seen, calls, err)
	}
	if err := EachLiving([]Ref{reused, none}, func(Tree) error { return errors.New("called") }); err != nil {
		t.Errorf("with no process alive: %v", err)
	}
}

// TestEachLivingNoFiles fails if no process can be opened.
func TestEachLivingNoFiles(t *testing.T) {
	if inFewFiles(t, 40) {
		return
	}
	self, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	none := unix.Rlimit{Cur: 0, Max: 40}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err = EachLiving([]Ref{self.Ref, self.Ref}, func(Tree) error { return errors.New("called") })
	none.Cur = 40
	if err2 := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err2 != nil {
		t.Fatal(err2)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("got %v, want EMFILE", err)
	}
}
