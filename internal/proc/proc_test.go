// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	tail := " S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 2"
	for _, tc := range []struct {
		name, line string
		want       Stat
		bad        bool
	}{
		{name: "plain", line: "12 (sh)" + tail, want: Stat{Comm: "sh", State: 'S', PPID: 7, Flags: 4194560, Start: 123456}},
		{name: "space and parentheses in the name", line: "12 (a) S 1 (b)" + tail, want: Stat{Comm: "a) S 1 (b", State: 'S', PPID: 7, Flags: 4194560, Start: 123456}},
		{name: "empty", line: "", bad: true},
		{name: "cut short", line: "12 (sh) S 7 1", bad: true},
		{name: "no number", line: "12 (sh) S x 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 2", bad: true},
	} {
		got, err := parseStat([]byte(tc.line))
		if (err != nil) != tc.bad || got != tc.want {
			t.Errorf("%s: got %+v, %v", tc.name, got, err)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (a) b) S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 2"))
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := parseStat(data)
		if err == nil && !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", rune(st.State)) {
			t.Errorf("accepted the state %q", st.State)
		}
	})
}

func TestParseRef(t *testing.T) {
	for _, s := range []string{"", "1", "@", "0@5", "-1@5", "x@5", "5@x", "5@-1"} {
		if r, err := ParseRef(s); err == nil {
			t.Errorf("ParseRef(%q) = %v", s, r)
		}
	}
	want := Ref{PID: 5, Start: 77}
	if got, err := ParseRef(want.String()); err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add("5@77")
	f.Add("+05@077")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRef(text)
		if err != nil {
			return
		}
		if again, err := ParseRef(r.String()); r.PID <= 0 || err != nil || again != r {
			t.Errorf("%q became %v and %v: %v", text, r, again, err)
		}
	})
}

func start(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestIdentity(t *testing.T) {
	cmd := start(t, "sleep", "60")
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !p.Alive() || p.Ended(0) {
		t.Error("a running process looks ended")
	}
	if _, err := (Ref{PID: p.PID, Start: p.Start + 1}).Open(); !errors.Is(err, ErrGone) {
		t.Errorf("a reused pid was accepted: %v", err)
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !p.Ended(5 * time.Second) {
		t.Error("not ended after SIGKILL")
	}
	_ = cmd.Wait()
	if _, err := p.Ref.Open(); !errors.Is(err, ErrGone) {
		t.Errorf("an ended process was opened: %v", err)
	}
	if p.Alive() {
		t.Error("an ended process looks alive")
	}
	if err := p.Signal(unix.SIGCONT); err != nil {
		t.Errorf("a signal to an ended process: %v", err)
	}
}

func TestTree(t *testing.T) {
	cmd := start(t, "sh", "-c", "sleep 60 & sh -c 'sleep 61 & wait' & wait")
	root, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		tree, err := OpenTree(root.Ref)
		if err != nil {
			t.Fatal(err)
		}
		if len(tree) == 4 {
			defer tree.Close()
			if err := tree.Signal(unix.SIGKILL); err != nil {
				t.Error(err)
			}
			if left := tree.Ended(5 * time.Second); len(left) != 0 {
				t.Errorf("%d processes outlived SIGKILL", len(left))
			}
			return
		}
		tree.Close()
		if time.Now().After(deadline) {
			t.Fatalf("found %d processes, want 4", len(tree))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestCmdline(t *testing.T) {
	if got := Cmdline(os.Getpid()); len(got) == 0 || got[0] != os.Args[0] {
		t.Errorf("got %q", got)
	}
	if got := Cmdline(1 << 30); got != nil {
		t.Errorf("got %q for no process", got)
	}
}

// TestChildren reads the children of threads that are there, have ended, or
// cannot be read, from a directory like /proc/PID/task.
func TestChildren(t *testing.T) {
	process := func(threads map[string]string) string {
		t.Helper()
		dir := t.TempDir()
		for name, content := range threads {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			if content == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name, "children"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	unreadable := process(map[string]string{"1": ""})
	if err := os.Mkdir(filepath.Join(unreadable, "1", "children"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, dir string
		want      []int
		err       string
	}{
		{"two threads", process(map[string]string{"1": "7 8 ", "2": "9 "}), []int{7, 8, 9}, ""},
		{"no children", process(map[string]string{"1": " "}), nil, ""},
		{"the process has ended", filepath.Join(t.TempDir(), "none"), nil, ""},
		{"no such file in the kernel", process(map[string]string{"1": ""}), nil, "CONFIG_PROC_CHILDREN [NF204]"},
		{"not a number", process(map[string]string{"1": "7 x"}), nil, "invalid syntax"},
		{"unreadable", unreadable, nil, "is a directory"},
	} {
		got, err := children(tc.dir)
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.err)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestOpenLiving leaves out processes that have ended, and hides no other error.
func TestOpenLiving(t *testing.T) {
	cmd, other := start(t, "sleep", "60"), start(t, "sleep", "60")
	p, err1 := Open(cmd.Process.Pid)
	ended, err2 := Open(other.Process.Pid)
	if err := errors.Join(err1, err2, other.Process.Kill()); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	defer ended.Close()
	_ = other.Wait()
	refs := []Ref{ended.Ref, p.Ref, {PID: p.PID, Start: p.Start + 1}}
	tree, err := OpenLiving(refs)
	if err != nil || !slices.Equal(tree.Refs(), []Ref{p.Ref}) {
		t.Errorf("got %v, %v; want %v", tree.Refs(), err, p.Ref)
	}
	tree.Close()

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	tree, err = OpenLiving(refs)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if tree != nil || !errors.Is(err, unix.EMFILE) {
		t.Errorf("without descriptors: got %v, %v", tree, err)
	}
}
