// SPDX-License-Identifier: Apache-2.0

package netns_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func open(t *testing.T, n *netns.Namespace, err error) *netns.Namespace {
	t.Helper()
	nstest.Must(t, err)
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// sleeper starts a process in ns that lives until the test ends.
func sleeper(t *testing.T, ns *netns.Namespace) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	nstest.Must(t, ns.Do(cmd.Start))
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func TestOpen(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	cmd := sleeper(t, ns)
	pid := cmd.Process.Pid
	st, err := proc.ReadStat(pid)
	nstest.Must(t, err)
	path := fmt.Sprintf("/proc/%d/ns/net", pid)

	opened := map[string]*netns.Namespace{}
	add := func(how string, n *netns.Namespace, err error) { opened[how] = open(t, n, err) }
	n, err := netns.OpenPath(path)
	add("path", n, err)
	n, err = netns.OpenPID(pid, 0)
	add("pid", n, err)
	n, err = netns.OpenPID(pid, st.Start)
	add("pid and start time", n, err)
	n, err = netns.Find(ns.ID())
	add("identity", n, err)
	nstest.Must(t, ns.Do(func() error {
		n, err := netns.OpenSelf()
		add("visited", n, err)
		return nil
	}))
	for how, n := range opened {
		if n.ID() != ns.ID() {
			t.Errorf("by %s: got %s, want %s", how, n, ns)
		}
		if n.FD() == ns.FD() {
			t.Errorf("by %s: the file descriptor is shared", how)
		}
	}
	if link, err := os.Readlink(path); err != nil || ns.ID().String() != link {
		t.Errorf("the identity is %s, the kernel's name %s (%v)", ns.ID(), link, err)
	}
	host, err := netns.OpenHost()
	if host = open(t, host, err); host.ID() == ns.ID() {
		t.Error("the host's namespace is the new one")
	}
	nstest.Must(t, host.Close())
	nstest.Must(t, host.Close())
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	nstest.Must(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{file, t.TempDir(), "/dev/null", "/proc/self/ns/mnt", "/proc/self/stat", "/run/netns/absent", ""} {
		if n, err := netns.OpenPath(path); err == nil {
			t.Errorf("%q was opened as %s", path, n)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name %q: %v", path, err)
		}
	}
}

// TestOpenPIDReused gives a process's number with the start time of another.
func TestOpenPIDReused(t *testing.T) {
	t.Parallel()
	cmd := sleeper(t, nstest.New(t))
	pid := cmd.Process.Pid
	st, err := proc.ReadStat(pid)
	nstest.Must(t, err)
	check := func(what string, pid int, start uint64) {
		t.Helper()
		if n, err := netns.OpenPID(pid, start); !errors.Is(err, proc.ErrGone) {
			t.Errorf("%s: got %v, %v", what, n, err)
		}
	}
	check("another start time", pid, st.Start+1)
	nstest.Must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	check("ended", pid, st.Start)
	check("ended, any start time", pid, 0)
	check("no process", -1, 0)
}

func TestFind(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	if n, err := netns.Find(ns.ID()); !errors.Is(err, netns.ErrGone) {
		t.Errorf("without a name or a process: got %v, %v", n, err)
	}
	if path := netns.Mounted(ns.ID()); path != "" {
		t.Errorf("it is mounted at %s", path)
	}
	point := filepath.Join(t.TempDir(), "a name")
	nstest.Must(t, os.WriteFile(point, nil, 0o600))
	nstest.Must(t, unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.FD()), point, "", unix.MS_BIND, ""))
	t.Cleanup(func() { nstest.Must(t, unix.Unmount(point, unix.MNT_DETACH)) })
	if path := netns.Mounted(ns.ID()); path != point {
		t.Errorf("it is mounted at %q, want %q", path, point)
	}
	n, err := netns.Find(ns.ID())
	if n = open(t, n, err); n.ID() != ns.ID() {
		t.Errorf("found %s, want %s", n, ns)
	}
}

// TestDo has many visits at once: none disturbs another, or the process.
func TestDo(t *testing.T) {
	t.Parallel()
	home, err := os.Readlink("/proc/self/ns/net")
	nstest.Must(t, err)
	spaces := []*netns.Namespace{nstest.New(t), nstest.New(t), nstest.New(t)}
	var all sync.WaitGroup
	for i := range 60 {
		ns := spaces[i%len(spaces)]
		all.Go(func() {
			err := ns.Do(func() error {
				for range 20 {
					here, err := os.Readlink("/proc/thread-self/ns/net")
					if err != nil {
						return err
					}
					if here != ns.ID().String() {
						return fmt.Errorf("in %s instead of %s", here, ns)
					}
					if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != home {
						return fmt.Errorf("the process is in %s (%w)", now, err)
					}
				}
				out, err := exec.Command("readlink", "/proc/self/ns/net").Output()
				if got := strings.TrimSpace(string(out)); err == nil && got != ns.ID().String() {
					return fmt.Errorf("a child is in %s instead of %s", got, ns)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			self, err := netns.OpenSelf()
			if err != nil {
				t.Error(err)
				return
			}
			defer self.Close() // opened for comparison
			if self.ID().String() != home {
				t.Errorf("after a visit the thread is in %s", self)
			}
		})
	}
	all.Wait()

	want := errors.New("this one")
	if err := spaces[0].Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("the error is %v", err)
	}
	closed := nstest.New(t)
	nstest.Must(t, closed.Close())
	if err := closed.Do(func() error { t.Error("entered a closed namespace"); return nil }); err == nil {
		t.Error("a closed namespace was entered without an error")
	}
}
