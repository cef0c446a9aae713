// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// fresh gives a test an empty state directory.
func fresh(t *testing.T) {
	t.Helper()
	must(t, os.RemoveAll(Dir))
	must(t, MakeDir())
	t.Cleanup(func() { _ = os.RemoveAll(Dir) })
}

// tree is a record's tree of one process that lives until the test ends, or of
// one that has gone.
func tree(t *testing.T, alive bool) []proc.Ref {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	must(t, cmd.Start())
	stat, err := proc.ReadStat(cmd.Process.Pid)
	must(t, err)
	end := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if alive {
		t.Cleanup(end)
	} else {
		end()
	}
	return []proc.Ref{{PID: cmd.Process.Pid, Start: stat.Start}}
}

// ids are the names of the records that are kept, in order.
func ids(t *testing.T) []string {
	t.Helper()
	all, err := All()
	must(t, err)
	var names []string
	for _, r := range all {
		names = append(names, r.ID)
	}
	slices.Sort(names)
	return names
}

// TestDir keeps the two constants together: action must not link this package.
func TestDir(t *testing.T) {
	t.Parallel()
	if action.Dir != Dir {
		t.Errorf("the settlers' sockets are looked for in %s and made in %s", action.Dir, Dir)
	}
	if got := action.Socket("1@2"); got != action.Dir+"/1@2.sock" {
		t.Errorf("the socket is %s", got)
	}
}

// TestRecord saves, reads and removes a record.
func TestRecord(t *testing.T) {
	fresh(t)
	if _, err := Load("1@1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a record that is not there: %v", err)
	}
	r := &Record{ID: "1@1", Op: Dump, Phase: Running, Scope: NetNS, Container: identity.Container{ID: "web"}, Until: time.Now().Add(time.Hour)}
	must(t, r.Save())
	r.Phase = Held
	must(t, r.Save())
	got, err := Load("1@1")
	must(t, err)
	if got.Phase != Held || got.Container.ID != "web" || !got.Until.Equal(r.Until) {
		t.Errorf("got %+v", got)
	}
	entries, err := os.ReadDir(Dir)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("files beside the record: %v", entries)
	}
	info, err := os.Stat(path("1@1"))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the record's mode is %v", info.Mode())
	}
	must(t, os.WriteFile(path("2@2"), []byte("{"), 0o600))
	must(t, os.WriteFile(filepath.Join(Dir, "3@3.lock"), nil, 0o600))
	all, err := All()
	if len(all) != 1 || err == nil || !strings.Contains(err.Error(), "2@2.json") {
		t.Errorf("beside an unreadable one: %d records, %v", len(all), err)
	}
	must(t, os.Remove(path("2@2")))
	must(t, r.Remove())
	must(t, r.Remove()) // again is no error
	if left := ids(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	must(t, os.RemoveAll(Dir))
	if all, err := All(); len(all) > 0 || err != nil {
		t.Errorf("without the directory: %v, %v", all, err)
	}
	if err := r.Save(); err == nil {
		t.Error("a record was saved without the directory")
	}
}

// TestReasons asks each phase, with and without what keeps it, whether the
// namespace must stay frozen.
func TestReasons(t *testing.T) {
	fresh(t)
	living, gone := tree(t, true), tree(t, false)
	for _, tc := range []struct {
		phase                  Phase
		criu                   bool // lives
		alive, locked, over    bool
		settling, holds, waits bool
	}{
		{phase: Running, alive: true},
		{phase: Running, criu: true, alive: true, locked: true, settling: true, holds: true},
		{phase: Running, criu: true, over: true, locked: true, settling: true, holds: true},
		{phase: Running, alive: true, locked: true, settling: true}, // it is about to be undone
		{phase: Committed, alive: true, holds: true},                // its settler was killed
		{phase: Committed, waits: true},
		{phase: Committed, over: true},
		{phase: Committed, criu: true, locked: true, settling: true, holds: true},
		{phase: Committed, alive: true, locked: true, settling: true, holds: true},
		{phase: Committed, locked: true, settling: true, waits: true}, // CRIU has ended the tasks
		{phase: Held, alive: true, holds: true},
		{phase: Held, alive: true, over: true, holds: true}, // stopped still
		{phase: Held, waits: true},
		{phase: Held, over: true},
		{phase: Held, locked: true, waits: true}, // by a command, not a settler
		{phase: Isolated, alive: true, holds: true},
		{phase: Isolated},
		{phase: Ended, alive: true, waits: true}, // whose number is another's by now
		{phase: Ended, over: true},
		{phase: Frozen, waits: true},
		{phase: Frozen, over: true},
	} {
		r := &Record{ID: "1@1", Phase: tc.phase, Tree: gone, Until: time.Now().Add(time.Hour)}
		if tc.alive {
			r.Tree = slices.Concat(gone, living)
		}
		if tc.criu {
			r.CRIU = living[0]
		}
		if tc.over {
			r.ExpireIn(-time.Second)
		}
		unlock := func() {}
		if tc.locked {
			f, err := Acquire(r.ID)
			must(t, err)
			unlock = func() { Release(r.ID, f) }
		}
		if r.Alive() != tc.alive || r.Settling() != tc.settling || r.Holds() != tc.holds || r.Waits() != tc.waits {
			t.Errorf("%+v: alive %v, settling %v, holds %v, waits %v", tc, r.Alive(), r.Settling(), r.Holds(), r.Waits())
		}
		unlock()
	}
	if other := (proc.Ref{PID: living[0].PID, Start: living[0].Start + 1}); (&Record{Tree: []proc.Ref{other}}).Alive() {
		t.Error("a process with the number of a former one passes for it")
	}
}

// TestOver tells what nobody needs any more.
func TestOver(t *testing.T) {
	fresh(t)
	living, gone := tree(t, true), tree(t, false)
	past, future := time.Now().Add(-time.Second), time.Now().Add(time.Hour)
	f, err := Acquire("settling")
	must(t, err)
	defer Release("settling", f)
	for _, test := range []struct {
		Record
		over bool
	}{
		{Record{ID: "ended", Phase: Ended, Until: past}, true},
		{Record{ID: "orphan", Phase: Committed, Tree: gone, Until: past}, true},
		{Record{ID: "alive", Phase: Held, Tree: living, Until: past}, false},
		{Record{ID: "settling", Phase: Running, Until: past}, false},
		{Record{ID: "waiting", Phase: Ended, Tree: gone, Until: future}, false},
	} {
		if got := test.Over(); got != test.over {
			t.Errorf("%s: over %v", test.ID, got)
		}
	}
}

// TestSweep removes the files of settlers that were killed, and no others.
func TestSweep(t *testing.T) {
	fresh(t)
	files := func(id string) (n int) {
		for _, path := range []string{filepath.Join(Dir, id+lockSuffix), action.Socket(id)} {
			if _, err := os.Stat(path); err == nil {
				n++
			}
		}
		return n
	}
	for _, id := range []string{"killed", "with a record"} {
		for _, path := range []string{filepath.Join(Dir, id+lockSuffix), action.Socket(id)} {
			must(t, os.WriteFile(path, nil, 0o600))
		}
	}
	must(t, (&Record{ID: "with a record"}).Save())
	must(t, os.WriteFile(action.Socket("without its lock"), nil, 0o600)) // there was no file for it
	f, err := Acquire("at work")
	must(t, err)
	defer Release("at work", f)
	Sweep()
	must(t, os.WriteFile(action.Socket("at work"), nil, 0o600))
	Sweep()
	for id, want := range map[string]int{"killed": 0, "without its lock": 0, "with a record": 2, "at work": 2} {
		if n := files(id); n != want {
			t.Errorf("%s: %d files are left, not %d", id, n, want)
		}
	}
}

// TestOf finds a namespace's records, and none of a former one with its inode.
func TestOf(t *testing.T) {
	fresh(t)
	ns, other := nstest.New(t), nstest.New(t)
	cookie, err := ns.Cookie()
	must(t, err)
	if cookie == 0 {
		t.Fatal("the kernel has no cookies for network namespaces")
	}
	for _, r := range []*Record{
		{ID: "1@1", NetNS: ns.ID(), Cookie: cookie},
		{ID: "2@2", NetNS: ns.ID()}, // made where there were no cookies
		{ID: "3@3", NetNS: ns.ID(), Cookie: cookie + 1},
		{ID: "4@4", NetNS: other.ID(), Cookie: cookie + 1},
	} {
		must(t, r.Save())
	}
	must(t, os.WriteFile(path("5@5"), []byte("{"), 0o600))
	of, err := Of(ns)
	must(t, err)
	var got []string
	for _, r := range of {
		got = append(got, r.ID)
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"1@1", "2@2"}) {
		t.Errorf("got %v", got)
	}
	must(t, os.Remove(path("5@5")))
	if left := ids(t); !slices.Equal(left, []string{"1@1", "2@2", "4@4"}) {
		t.Errorf("left: %v", left)
	}
}

// TestMakeDir refuses a directory that others could have filled.
func TestMakeDir(t *testing.T) {
	for name, spoil := range map[string]func() error{
		"a mode for others": func() error { return os.Chmod(Dir, 0o750) },
		"another owner":     func() error { return os.Chown(Dir, 1000, 0) },
		"a file":            func() error { return errors.Join(os.Remove(Dir), os.WriteFile(Dir, nil, 0o600)) },
		"a link":            func() error { return errors.Join(os.Remove(Dir), os.Symlink(t.TempDir(), Dir)) },
	} {
		t.Run(name, func(t *testing.T) {
			fresh(t)
			must(t, spoil())
			if err := MakeDir(); err == nil || !strings.Contains(err.Error(), "remove it") {
				t.Errorf("got %v", err)
			}
		})
	}
	fresh(t)
	must(t, MakeDir()) // again is no error
	info, err := os.Stat(Dir)
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("made with mode %v", info.Mode())
	}
}

// TestSaveTogether has two write the same record at the same time: whoever reads it
// sees one of them, and no part is left.
func TestSaveTogether(t *testing.T) {
	fresh(t)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			r := &Record{ID: "1@1", Note: strings.Repeat(fmt.Sprint(i), 1000*(i+1))}
			for range 100 {
				if err := r.Save(); err != nil {
					t.Error(err)
				}
				if _, err := Load("1@1"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	entries, err := os.ReadDir(Dir)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("left beside the record: %v", entries)
	}
}

// TestUndoable keeps what somebody may have to undo.
func TestUndoable(t *testing.T) {
	fresh(t)
	living, gone := tree(t, true), tree(t, false)
	for _, tc := range []struct {
		Record
		want bool
	}{
		{Record{Op: Dump, Phase: Held, Stopped: true, Tree: living}, true},
		{Record{Op: Dump, Phase: Isolated, Tree: living}, true},
		{Record{Op: Dump, Phase: Running, Tree: living}, true}, // sockets may be in repair mode
		{Record{Op: Dump, Phase: Committed, Tree: living}, true},
		{Record{Op: Dump, Phase: Committed, Stopped: true, Tree: gone}, false},
		{Record{Op: Restore, Phase: Running, Tree: living}, false},
		{Record{Op: Manual, Phase: Frozen}, false},
	} {
		if got := tc.Undoable(); got != tc.want {
			t.Errorf("%s, %s: %v", tc.Op, tc.Phase, got)
		}
	}
}

// TestOrphanWorks keeps frozen what a living CRIU goes on with though its settler was
// killed, for no longer than the time to live.
func TestOrphanWorks(t *testing.T) {
	fresh(t)
	for _, phase := range []Phase{Running, Committed} {
		r := &Record{ID: "1@1", Phase: phase, Policy: "run", CRIU: tree(t, true)[0]}
		r.ExpireIn(time.Minute)
		if !r.Holds() || r.Waits() {
			t.Errorf("%s: holds %v, waits %v", phase, r.Holds(), r.Waits())
		}
		r.ExpireIn(-time.Second)
		if r.Holds() {
			t.Errorf("%s: holds after its time to live", phase)
		}
		r = &Record{ID: "1@1", Phase: phase, Policy: "run", CRIU: tree(t, false)[0]}
		r.ExpireIn(time.Minute)
		if r.Holds() {
			t.Errorf("%s: holds although CRIU has gone", phase)
		}
	}
}

// TestSweepHalfWritten removes what somebody who was killed had half written.
func TestSweepHalfWritten(t *testing.T) {
	fresh(t)
	killed, other := exec.Command("true"), exec.Command("sleep", "60")
	must(t, killed.Run())
	must(t, other.Start())
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	for pid, test := range map[int]struct {
		age  time.Duration
		left bool
	}{
		os.Getpid():               {0, true},
		other.Process.Pid:         {time.Hour, false}, // has the pid by chance
		killed.ProcessState.Pid(): {0, false},
	} {
		path := filepath.Join(Dir, fmt.Sprintf(".1@1.json.netfreeze-%d-7", pid))
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Chtimes(path, time.Time{}, time.Now().Add(-test.age)))
		Sweep()
		if _, err := os.Lstat(path); (err == nil) != test.left {
			t.Errorf("%s, %v old: %v", path, test.age, err)
		}
	}
}
