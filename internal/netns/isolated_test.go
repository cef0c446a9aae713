// SPDX-License-Identifier: Apache-2.0

package netns_test

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// refused makes sure that a namespace is refused and the error says why.
func refused(t *testing.T, n *netns.Namespace, why string, others ...netns.ID) {
	t.Helper()
	i, err := n.Isolate(others...)
	var refusal *netns.RefusedError
	if !errors.As(err, &refusal) || i != nil {
		t.Fatalf("%s was not refused: %v, %v", n, i, err)
	}
	if !strings.Contains(refusal.Why, why) || !strings.Contains(err.Error(), n.ID().String()) {
		t.Errorf("the refusal is %q, want one with %q", err, why)
	}
}

func TestIsolate(t *testing.T) {
	t.Parallel()
	ns, other := nstest.New(t), nstest.New(t)
	i, err := ns.Isolate(other.ID())
	nstest.Must(t, err)
	if i.ID() != ns.ID() {
		t.Errorf("got %s, want %s", i, ns)
	}
	entered := false
	nstest.Must(t, i.Do(func() error { entered = true; return nil }))
	if !entered {
		t.Error("Do did nothing")
	}
	refused(t, ns, "CRIU runs in", other.ID(), ns.ID())
}

// TestIsolateHost refuses pid 1's namespace from a process that is elsewhere,
// and this process's own: the tests run again as a child in another namespace.
func TestIsolateHost(t *testing.T) {
	const childVar = "NETFREEZE_NETNS_CHILD"
	if os.Getenv(childVar) == "" {
		host, err := netns.OpenHost()
		refused(t, open(t, host, err), "it is the")
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v") // this program
		cmd.Env = append(os.Environ(), childVar+"=1")
		var out []byte
		if err := nstest.New(t).Do(func() (err error) { out, err = cmd.CombinedOutput(); return err }); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("the child did not run the test:\n%s", out)
		}
		return
	}
	host, err := netns.OpenHost()
	refused(t, open(t, host, err), "that of pid 1")
	own, err := netns.OpenPath("/proc/self/ns/net")
	refused(t, open(t, own, err), "runs in")
}

// TestIsolateThread refuses the namespace of the calling thread alone.
func TestIsolateThread(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nstest.Must(t, ns.Do(func() error {
		refused(t, ns, "this thread runs in")
		return nil
	}))
	nstest.Isolated(t)
}

// TestIsolateInDoubt refuses everything when pid 1's namespace cannot be seen.
func TestIsolateInDoubt(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	i, err := ns.Isolate()
	nstest.Must(t, err)
	nstest.Must(t, <-withoutProc(func() { refused(t, ns, "cannot be told apart") }))
	nstest.Must(t, i.Do(func() error { return nil }))
}

// withoutProc runs f on a thread that has mounts of its own, with nothing in
// /proc, and that ends afterwards. It must not be the process's first one,
// whose mounts /proc/self shows.
func withoutProc(f func()) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- <-withoutProc(f)
			runtime.UnlockOSThread()
			return
		}
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("none", "/proc", "tmpfs", 0, "")
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	return done
}
