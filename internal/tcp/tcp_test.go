// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// childEnv makes this test binary play a task: it listens, and connects to
// what it is told.
const childEnv = "TCP_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child listens on a port of loopback, says which, accepts one connection and
// then waits for the end of its input.
func child() error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // CRIU knows no MPTCP
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close() // the process ends
	fmt.Println("accepted")
	go func() { _, _ = io.Copy(io.Discard, c) }()
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	return errors.Join(err, l.Close())
}

// inNetNS runs f on a thread in a network namespace of its own, with loopback up.
func inNetNS(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = exec.Command("ip", "link", "set", "lo", "up").Run()
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("make a network namespace (run as root, with iproute2): %v", err)
	}
}

// task is a child with one connection to us.
type task struct {
	cmd   *exec.Cmd
	tree  proc.Tree
	conn  net.Conn
	tuple Tuple // as the child sees it
}

func startTask(t *testing.T) *task {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	k := &task{cmd: cmd}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewReader(out)
	addr, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if k.conn, err = net.Dial("tcp4", addr[:len(addr)-1]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.conn.Close() })
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	k.tuple = Tuple{Local: netip.MustParseAddrPort(addr[:len(addr)-1]), Remote: netip.MustParseAddrPort(k.conn.LocalAddr().String())}
	p, err := proc.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	k.tree = proc.Tree{p}
	t.Cleanup(k.tree.Close)
	return k
}

// find returns the namespace's sockets with this tuple.
func find(t *testing.T, tuple Tuple) []Socket {
	t.Helper()
	socks, err := List()
	if err != nil {
		t.Fatal(err)
	}
	var found []Socket
	for _, s := range socks {
		if s.Tuple == tuple {
			found = append(found, s)
		}
	}
	return found
}

func TestListAndOwned(t *testing.T) {
	inNetNS(t, func() {
		k := startTask(t)
		inodes, err := Inodes(k.tree)
		if err != nil {
			t.Fatal(err)
		}
		socks, err := List()
		if err != nil {
			t.Fatal(err)
		}
		if got := Owned(socks, inodes); len(got) != 1 || got[0] != k.tuple {
			t.Errorf("the task's connections are %v, want %v alone", got, k.tuple)
		}
		if got := Connections(socks); len(got) != 2 { // the other end is ours
			t.Errorf("the connections are %v, want both ends of %v", got, k.tuple)
		}
		if n := Pending(socks); n != 0 {
			t.Errorf("%d handshakes pending, want none", n)
		}
		second, err := net.Dial("tcp4", k.tuple.Local.String()) // nobody accepts it
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close() // a test's end
		if socks, err = List(); err != nil || Pending(socks) != 1 {
			t.Errorf("%d handshakes pending, %v; want 1", Pending(socks), err)
		}
	})
}

// reuse returns the task's SO_REUSEADDR on its connection.
func (k *task) reuse(t *testing.T) (value int) {
	t.Helper()
	err := eachTCP(k.tree, func(fd int, _ uint32) error {
		accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err == nil && accepts == 0 {
			value, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestEnterAndLeaveRepair(t *testing.T) {
	inNetNS(t, func() {
		k := startTask(t)
		before := k.reuse(t)
		saved, err := EnterRepair(k.tree)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := EnterRepair(k.tree); err != nil || len(again) != 0 {
			t.Errorf("the second time: %v, %v", again, err)
		}
		n, streams, err := LeaveRepair(k.tree, saved)
		if err != nil || n != 1 || len(streams) != 1 {
			t.Fatalf("LeaveRepair: %d sockets, %d streams, %v; want 1", n, len(streams), err)
		}
		s := streams[0]
		if s.Tuple != k.tuple || s.State != Established || s.SndUna != s.SndNxt || s.Window == 0 || s.MSS == 0 || !s.Timestamps {
			t.Errorf("the stream is %+v", s)
		}
		if got := k.reuse(t); got != before {
			t.Errorf("SO_REUSEADDR is %d, was %d", got, before)
		}
		if n, _, err = LeaveRepair(k.tree, nil); err != nil || n != 0 {
			t.Errorf("the second time: %d, %v", n, err)
		}
	})
}

// TestReceived asks a socket in repair mode how far it has received, before and after
// more comes in, as it does where nothing is frozen.
func TestReceived(t *testing.T) {
	inNetNS(t, func() {
		k := startTask(t)
		if _, err := EnterRepair(k.tree); err != nil {
			t.Fatal(err)
		}
		ask := func() uint32 {
			t.Helper()
			next, err := Received(k.tree, []Tuple{k.tuple})
			if err != nil || len(next) != 1 {
				t.Fatalf("got %v, %v", next, err)
			}
			return next[k.tuple]
		}
		before := ask()
		if _, err := k.conn.Write([]byte("12345")); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); ask() == before && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if n := ask() - before; n != 5 {
			t.Errorf("%d bytes more, want 5", n)
		}
		if other, err := Received(k.tree, []Tuple{k.tuple.Reverse()}); err != nil || len(other) != 0 {
			t.Errorf("of another connection: %v, %v", other, err)
		}
		if _, _, err := LeaveRepair(k.tree, nil); err != nil {
			t.Fatal(err)
		}
		if open, err := Received(k.tree, []Tuple{k.tuple}); err != nil || len(open) != 0 {
			t.Errorf("not in repair mode: %v, %v", open, err)
		}
	})
}

// TestSilentEnd shows the difference: with TCP_REPAIR on, the end of a task
// leaves nothing behind, and its peer is told nothing.
func TestSilentEnd(t *testing.T) {
	for name, silence := range map[string]func(proc.Tree) error{
		"held":     func(tree proc.Tree) error { _, err := EnterRepair(tree); return err },
		"for good": ForceRepair,
		"both":     func(tree proc.Tree) error { _, err := EnterRepair(tree); return errors.Join(err, ForceRepair(tree)) },
	} {
		t.Run(name, func(t *testing.T) { inNetNS(t, func() { silentEnd(t, silence) }) })
	}
}

func silentEnd(t *testing.T, silence func(proc.Tree) error) {
	k := startTask(t)
	if err := silence(k.tree); err != nil {
		t.Fatal(err)
	}
	if err := k.tree.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if left := k.tree.Ended(10 * time.Second); len(left) > 0 {
		t.Fatal("the task has not ended")
	}
	if left := find(t, k.tuple); len(left) != 0 {
		t.Errorf("left behind: %+v", left)
	}
	_ = k.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := k.conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the peer heard of the end: %v", err)
	}
	if err := silence(k.tree); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

// TestDestroy removes what an ordinary end leaves behind.
func TestDestroy(t *testing.T) {
	inNetNS(t, func() {
		k := startTask(t)
		_ = k.cmd.Process.Kill()
		if left := k.tree.Ended(10 * time.Second); len(left) > 0 {
			t.Fatal("the task has not ended")
		}
		left := find(t, k.tuple) // FIN-WAIT-2: our end has not been closed
		if len(left) != 1 || left[0].Inode != 0 {
			t.Fatalf("want one socket without an owner, have %+v", left)
		}
		for range 2 {
			if err := Destroy(left[0]); err != nil {
				t.Error(err)
			}
		}
		if left := find(t, k.tuple); len(left) != 0 {
			t.Errorf("still there: %+v", left)
		}
	})
}

// TestFamilies lists and removes connections of each family, and one over IPv4
// whose sockets are of IPv6.
func TestFamilies(t *testing.T) {
	inNetNS(t, func() {
		for _, tc := range []struct{ listen, dial string }{
			{"127.0.0.1:0", "127.0.0.1"}, {"[::1]:0", "::1"}, {"[::]:0", "127.0.0.1"},
		} {
			var lc net.ListenConfig
			lc.SetMultipathTCP(false)
			l, err := lc.Listen(context.Background(), "tcp", tc.listen)
			if err != nil {
				t.Fatal(err)
			}
			port := uint16(l.Addr().(*net.TCPAddr).Port) // a port
			there := netip.AddrPortFrom(netip.MustParseAddr(tc.dial), port)
			c, err := net.Dial("tcp", there.String())
			if err != nil {
				t.Fatal(err)
			}
			here := netip.MustParseAddrPort(c.LocalAddr().String())
			theirs, ours := find(t, Tuple{Local: there, Remote: here}), find(t, Tuple{Local: here, Remote: there})
			if len(theirs) != 1 || len(ours) != 1 || theirs[0].State != Established || ours[0].State != Established {
				t.Fatalf("%s: found %+v and %+v", tc.listen, theirs, ours)
			}
			if err := Destroy(theirs[0]); err != nil {
				t.Errorf("%s: %v", tc.listen, err)
			}
			if left := find(t, theirs[0].Tuple); len(left) != 0 {
				t.Errorf("%s: still there: %+v", tc.listen, left)
			}
			_, _ = c.Close(), l.Close()
		}
	})
}
