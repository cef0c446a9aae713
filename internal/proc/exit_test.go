// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// poll asks until it is true.
func poll(t *testing.T, what string, ask func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ask(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// TestExitStatus reads how processes ended, before and after their parent waits.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]func(unix.WaitStatus) bool{
		"read x; exit 0":     func(s unix.WaitStatus) bool { return s.Exited() && s.ExitStatus() == 0 },
		"read x; exit 3":     func(s unix.WaitStatus) bool { return s.Exited() && s.ExitStatus() == 3 },
		"read x; kill -9 $$": func(s unix.WaitStatus) bool { return s.Signaled() && s.Signal() == unix.SIGKILL },
	} {
		cmd := exec.Command("sh", "-c", script)
		stdin, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := Open(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if s, known := p.ExitStatus(); known {
			t.Errorf("%s: status %v while it runs", script, s)
		}
		_ = stdin.Close()
		if !p.Ended(10 * time.Second) {
			t.Fatal("it does not end")
		}
		if s, known := p.ExitStatus(); !known || !want(s) {
			t.Errorf("%s, as a zombie: %#x, %v", script, s, known)
		}
		_ = cmd.Wait()
		if s, known := p.ExitStatus(); known && !want(s) {
			t.Errorf("%s, waited for: %#x", script, s)
		} else if known != KeepsExitStatus() {
			t.Errorf("%s, waited for: known %v, and KeepsExitStatus says %v", script, known, KeepsExitStatus())
		}
		p.Close()
	}
}

// TestReceives tells a process that waits for a request from one that waits for
// something else.
func TestReceives(t *testing.T) {
	t.Parallel()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	server := exec.Command("perl", "-e", `open(my $s, "+<&=3"); recv($s, my $b, 10, 0); sleep 3600`)
	server.ExtraFiles = []*os.File{theirs}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	p, err := Open(server.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	poll(t, "it never receives", p.Receives)
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	poll(t, "it still receives", func() bool { return !p.Receives() })
}

// TestStopped finds the tasks that a signal has stopped.
func TestStopped(t *testing.T) {
	t.Parallel()
	var tree Tree
	for range 2 {
		cmd := exec.Command("sleep", "3600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		p, err := Open(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		tree = append(tree, p)
	}
	if err := tree[1].Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	poll(t, "it does not stop", func() bool {
		refs, err := tree.Stopped()
		return err == nil && len(refs) == 1 && refs[0] == tree[1].Ref
	})
}
