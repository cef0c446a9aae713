// SPDX-License-Identifier: Apache-2.0

//go:build linux

package early_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

const (
	module = "github.com/criu-netfreeze/criu-netfreeze"
	entry  = module + "/internal/hook/early.entry"
)

// emulator is the program of qemu-user that runs programs of an architecture. It is
// executed by name, since the kernel may lack binfmt_misc.
var emulator = map[string]string{"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}

// eachArch runs a test for every architecture that has an entry.
func eachArch(t *testing.T, test func(t *testing.T, arch string)) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) { test(t, arch) })
	}
}

// dir is where the tests' programs are, which each are linked once.
var (
	dir   string
	mu    sync.Mutex
	built = map[string]string{}
)

// sources are the directories of what is linked into the action-script. The tests do
// not import that, so Go would take an earlier result for one that still holds; it does
// not if a file that the tests have read has changed since.
var sources = []string{".", "..", "../../action", "../../../cmd/netfreeze-hook"}

func TestMain(m *testing.M) {
	for _, source := range sources {
		files, err := filepath.Glob(filepath.Join(source, "*.[gs]*"))
		for _, file := range files {
			if _, err = os.ReadFile(file); err != nil {
				break
			}
		}
		if len(files) == 0 || err != nil {
			fmt.Fprintln(os.Stderr, "read the sources in", source, err)
			os.Exit(1)
		}
	}
	var err error
	if dir, err = os.MkdirTemp("", "early"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// buildHook links the action-script, with symbols: as the Makefile does, with -E, or
// else as any program, so that it begins with the runtime.
func buildHook(t *testing.T, arch string, early bool) string {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	path := filepath.Join(dir, fmt.Sprint(arch, early))
	if built[path] != "" {
		return path
	}
	flags := "-X " + module + "/internal/hook.Program=/nonexistent/netfreeze" // no settler of this machine
	if early {
		flags += " -E " + entry
	}
	cmd := exec.Command("go", "build", "-o", path, "-ldflags", flags, module+"/cmd/netfreeze-hook")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	built[path] = path
	return path
}

// script is a program that can be executed under a script's name.
type script struct {
	path     string
	emulator string // empty if the program is of this machine's architecture
}

// runnable links the action-script for an architecture whose programs can run here.
func runnable(t *testing.T, arch string, early bool) script {
	t.Helper()
	s := script{path: buildHook(t, arch, early)}
	if arch != runtime.GOARCH {
		var err error
		if s.emulator, err = exec.LookPath(emulator[arch]); err != nil {
			t.Skipf("%v (Debian has it in qemu-user-static)", err)
		}
	}
	return s
}

// run executes the script. Unlike exec.Cmd it passes the environment as it is, even
// if a variable is in it twice.
func (s script) run(t *testing.T, name string, arg []string, env ...string) (said string, code int) {
	t.Helper()
	path, args := s.path, []string{name}
	if s.emulator != "" {
		path, args = s.emulator, []string{s.emulator, "-0", name, s.path}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := os.StartProcess(path, append(args, arg...), &os.ProcAttr{Env: env, Files: []*os.File{nil, w, w}})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	state, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return string(out), state.ExitCode()
}

// TestSameAsMain compares with what the ordinary program does.
func TestSameAsMain(t *testing.T) {
	eachArch(t, func(t *testing.T, arch string) {
		early, ordinary := runnable(t, arch, true), runnable(t, arch, false)
		compare := func(t *testing.T, name string, env []string) {
			t.Helper()
			said, code := early.run(t, name, nil, env...)
			wantSaid, wantCode := ordinary.run(t, name, nil, env...)
			if said != wantSaid || code != wantCode {
				t.Errorf("%s, %q: exit code %d, %q; want %d, %q", name, env, code, said, wantCode, wantSaid)
			}
		}
		for _, name := range []string{"netfreeze-hook", "/usr/libexec/post-dump", "pre-restore", "other"} {
			for _, act := range []string{"", "pre-resume", "post-dump", "dump", "setup-namespaces", "network-lock"} {
				if action.Does(action.Base(name), act) {
					continue // TestForward
				}
				compare(t, name, []string{"A=b", "EMPTY=", "CRTOOLS_SCRIPT_ACTION=" + act, "CRTOOLS_SCRIPT_ACTIO=x"})
			}
		}
		if early.emulator != "" {
			return // the emulator puts the environment in order
		}
		const foreign, unknown = "CRTOOLS_SCRIPT_ACTION=pre-resume", "CRTOOLS_SCRIPT_ACTION=dump"
		for _, env := range [][]string{
			{},
			{foreign, unknown},
			{unknown, foreign},
			{"CRTOOLS_SCRIPT_ACTION=", foreign},
			{foreign, "CRTOOLS_SCRIPT_ACTION="},
			{"CRTOOLS_SCRIPT_ACTION", foreign},
			{"", foreign},
			{"=", unknown, ""},
		} {
			compare(t, "netfreeze-hook", env)
		}
	})
}

// TestForward passes actions on to a settler that answers in different ways, and
// compares with what the ordinary program does too.
func TestForward(t *testing.T) {
	eachArch(t, func(t *testing.T, arch string) {
		for _, way := range []struct {
			name  string
			early bool
		}{{"early", true}, {"ordinary", false}} {
			t.Run(way.name, func(t *testing.T) { testForward(t, runnable(t, arch, way.early), way.early) })
		}
	})
}

// listen returns the socket of a settler for the scripts that this process executes.
func listen(t *testing.T) *net.UnixListener {
	t.Helper()
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	id, ok := action.ID(os.Getpid(), stat)
	if !ok {
		t.Fatalf("malformed: %s", stat)
	}
	if err := os.MkdirAll(action.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: action.Socket(id), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func testForward(t *testing.T, hook script, early bool) {
	long := strings.Repeat("x", 5000) + "\n"
	env := []string{"CRTOOLS_SCRIPT_ACTION=post-dump", "CRTOOLS_INIT_PID=77", "CRTOOLS_IMAGE_DIR=/proc/5/fd/6"}
	again := []string{"CRTOOLS_IMAGE_DIR=/x", "CRTOOLS_INIT_PID=", "CRTOOLS_SCRIPT_ACTION=network-lock"}
	for _, tc := range []struct {
		name    string
		answers []string
		next    []string // of the settler after it
		said    string
		code    int
		env     []string // unless it is the usual one
	}{
		{name: "done", answers: []string{"E0"}},
		{name: "done, with lines", answers: []string{"Lone\n", "L" + long, "Ltwo\n", "E0"}, said: "one\n" + long + "two\n"},
		{name: "refused", answers: []string{"Lwhy\n", "E1"}, said: "why\n", code: 1},
		{name: "other exit code", answers: []string{"E00"}, code: 1},
		{name: "nonsense", answers: []string{"E"}, code: 1},
		{
			name: "died", answers: []string{"Lone\n"}, code: 1,
			said: "one\nnetfreeze: error: netfreeze-hook: post-dump: start the settler: fork/exec /nonexistent/netfreeze: no such file or directory (is criu-netfreeze installed completely?) [NF603]\n",
		},
		{name: "died, and the next one does it", answers: []string{"Lone\n"}, next: []string{"Ltwo\n", "E0"}, said: "one\ntwo\n"},
		{name: "variables twice", answers: []string{"E0"}, env: append(slices.Clone(env), again...)},
		{name: "empty entry", answers: []string{"E0"}, env: slices.Insert(slices.Clone(env), 1, "")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.env != nil && hook.emulator != "" {
				t.Skip("the emulator puts the environment in order")
			}
			l := listen(t)
			asked, threads := make(chan string, 1), 0
			go func() {
				_ = l.SetDeadline(time.Now().Add(10 * time.Second))
				c, err := l.Accept()
				defer l.Close()
				if tc.next == nil {
					_ = l.Close() // a second call finds no settler
				}
				if err != nil {
					asked <- err.Error()
					return
				}
				defer c.Close()
				buf := make([]byte, action.MaxMessage)
				n, _ := c.Read(buf)
				threads = countThreads(c.(*net.UnixConn))
				asked <- string(buf[:n])
				for _, a := range tc.answers {
					_, _ = c.Write([]byte(a))
				}
				_ = c.Close()
				if tc.next == nil {
					return
				}
				if c, err = l.Accept(); err != nil {
					return
				}
				defer c.Close()
				if again, _ := c.Read(buf[n:]); string(buf[:n]) != string(buf[n:n+again]) {
					_, _ = c.Write([]byte("Lanother request\n"))
				}
				for _, a := range tc.next {
					_, _ = c.Write([]byte(a))
				}
			}()
			if tc.env == nil {
				tc.env = env
			}
			said, code := hook.run(t, "/x/netfreeze-hook", nil, tc.env...)
			if said != tc.said || code != tc.code {
				t.Errorf("exit code %d, %q; want %d, %q", code, said, tc.code, tc.said)
			}
			if got, want := <-asked, "1\x00netfreeze-hook\x00post-dump\x00/proc/5/fd/6\x0077"; got != want {
				t.Errorf("the settler got %q, want %q", got, want)
			}
			// What is done early is done by the first thread, and the runtime starts more.
			only := 1
			if hook.emulator != "" {
				only = 2 // it has one of its own
			}
			if threads == 0 || (threads <= only) != early {
				t.Errorf("asked by a program with %d threads", threads)
			}
		})
	}
}

// countThreads returns how many threads the process on the other side of a connection
// has; 0 if that cannot be told.
func countThreads(c *net.UnixConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	var peer *syscall.Ucred
	if raw.Control(func(fd uintptr) {
		peer, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) != nil || err != nil {
		return 0
	}
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", peer.Pid))
	return len(threads)
}

// TestArguments makes sure that a program with arguments reaches main.
func TestArguments(t *testing.T) {
	eachArch(t, func(t *testing.T, arch string) {
		hook := runnable(t, arch, true)
		for _, arg := range []string{"--help", "-h"} {
			said, code := hook.run(t, "netfreeze-hook", []string{arg}, "CRTOOLS_SCRIPT_ACTION=pre-resume")
			if code != 0 || !strings.Contains(said, "netfreeze install") {
				t.Errorf("%s: exit code %d, %s", arg, code, said)
			}
		}
	})
}
