// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// childVar tells the test binary to be a program with something that is to be found.
const childVar = "NETFREEZE_DOCTOR_CHILD"

// child opens what kind names, says so, and waits until its standard input is closed.
func child(kind string) {
	if err := openKind(kind); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func openKind(kind string) error {
	kind, argument, _ := strings.Cut(kind, "=")
	socket := func(domain, typ, protocol int) error {
		_, err := unix.Socket(domain, typ, protocol)
		return err
	}
	switch kind {
	case "nothing":
		return nil
	case "vsock":
		return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	case "xdp":
		return socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	case "packet":
		return socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	case "udp":
		return socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	case "raw":
		return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_SCTP)
	case "fuse":
		_, err := unix.Open("/dev/fuse", unix.O_RDWR, 0)
		return err
	case "io_uring":
		var params [120]byte // struct io_uring_params
		_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	case "unix":
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrUnix{Name: argument})
	case "netlink":
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		const getlink = "\x14\x00\x00\x00\x12\x00\x01\x03\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // RTM_GETLINK, a dump
		return unix.Sendto(fd, []byte(getlink), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	case "mptcp":
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 7001}); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	}
	return connected(kind)
}

// connected makes a connection to itself, which it accepts unless that is the point.
func connected(kind string) error {
	server, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	here := &unix.SockaddrInet4{Port: 7002, Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(server, here); err != nil {
		return err
	}
	if err := unix.Listen(server, 1); err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(client, here); err != nil {
		return err
	}
	switch kind {
	case "backlog":
		return nil
	case "usertimeout":
		err = unix.SetsockoptInt(client, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30000)
	case "keepalive":
		err = unix.SetsockoptInt(client, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		for option, seconds := range map[int]int{unix.TCP_KEEPIDLE: 10, unix.TCP_KEEPINTVL: 5, unix.TCP_KEEPCNT: 2} {
			if err == nil {
				err = unix.SetsockoptInt(client, unix.IPPROTO_TCP, option, seconds)
			}
		}
	default:
		return fmt.Errorf("unknown kind %q", kind)
	}
	if err == nil {
		_, _, err = unix.Accept(server)
	}
	return err
}

// start runs a child in ns. It is skipped if the kernel has no such thing.
func start(t *testing.T, ns *netns.Namespace, kind string) *Subject {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+kind)
	in, err := cmd.StdinPipe()
	nstest.Must(t, err)
	out, err := cmd.StdoutPipe()
	nstest.Must(t, err)
	nstest.Must(t, ns.Do(cmd.Start))
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if strings.HasPrefix(line, "error:") {
		t.Skip(line)
	}
	nstest.Must(t, err)
	st, err := proc.ReadStat(cmd.Process.Pid)
	nstest.Must(t, err)
	s, err := Open(&Host{}, proc.Ref{PID: cmd.Process.Pid, Start: st.Start})
	nstest.Must(t, err)
	t.Cleanup(s.Close)
	return s
}

// TestContainer starts programs with something that a dump fails on, or that is good to
// know before it.
func TestContainer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	nstest.Must(t, err)
	defer listener.Close()
	for _, test := range []struct {
		kind    string
		check   func(*Subject) []Finding
		verdict Verdict
		text    string
		remedy  string
	}{
		{"nothing", checkSockets, OK, "of kinds that CRIU can dump", ""},
		{"nothing", checkFiles, OK, "none of", ""},
		{"nothing", checkTasks, OK, "1 processes", ""},
		{"nothing", checkHandshakes, OK, "none is in flight", ""},
		{"nothing", checkNetwork, OK, "nobody else is in it", ""},
		{"nothing", checkState, OK, "nothing is held", ""},
		{"mptcp", checkSockets, Fails, "CRIU cannot dump MPTCP sockets, here 0.0.0.0:7001", "GODEBUG=multipathtcp=0"},
		{"vsock", checkSockets, Fails, "CRIU cannot dump vsock sockets", "close it"},
		{"xdp", checkSockets, Fails, "CRIU cannot dump AF_XDP sockets", "close it"},
		{"packet", checkSockets, OK, "of kinds that CRIU can dump", ""},
		{"raw", checkSockets, OK, "of kinds that CRIU can dump", ""},
		{"udp", checkSockets, OK, "of kinds that CRIU can dump", ""},
		{"netlink", checkSockets, Warning, "data that the program has not read", "have the program read it"},
		{"unix=" + path, checkSockets, Fails, "outside of the tree", "--external 'unix["},
		{"fuse", checkFiles, Fails, "CRIU cannot dump the device /dev/fuse", "plugin"},
		{"io_uring", checkFiles, Fails, "CRIU cannot dump [io_uring]", "io_uring_disabled"},
		{"backlog", checkHandshakes, Fails, "1 connections to 127.0.0.1:7002 have waited", "skip-in-flight"},
		{"usertimeout", checkTimers, Warning, "the shortest of 30s", "TCP_USER_TIMEOUT"},
		{"keepalive", checkTimers, Note, "gives up after 20s", "keep the outage shorter"},
	} {
		t.Run(test.kind+test.text, func(t *testing.T) {
			s := start(t, nstest.New(t), test.kind)
			if strings.HasPrefix(test.kind, "unix") {
				c, err := listener.Accept()
				nstest.Must(t, err)
				defer c.Close()
			}
			first := test.check(s)[0]
			if first.Verdict != test.verdict || !strings.Contains(first.Text, test.text) || !strings.Contains(first.Remedy, test.remedy) {
				t.Errorf("%+v", first)
			}
			if test.verdict == Fails && !strings.Contains(first.Subject, fmt.Sprintf("pid %d (exe), fd ", s.root().PID)) {
				t.Errorf("it does not say where: %+v", first)
			}
		})
	}
}

// TestHalfOpen finds a handshake whose last segment never comes.
func TestHalfOpen(t *testing.T) {
	ns := nstest.New(t)
	nstest.Run(t, ns, "nft", "add table inet t; add chain inet t o { type filter hook output priority 0; }; "+
		"add rule inet t o tcp dport 7002 tcp flags & (syn | ack) == ack drop")
	s := start(t, ns, "backlog") // the client is connected, as it sees it
	first := checkHandshakes(s)[0]
	if first.Verdict != Warning || first.Subject != "127.0.0.1:7002" || !strings.Contains(first.Text, "1 handshakes are in flight") {
		t.Errorf("%+v", first)
	}
}

// TestAnnotated looks at the file that a container's annotation names.
func TestAnnotated(t *testing.T) {
	f := newFixture(t)
	s := &Subject{host: &f.Host, container: &container.Container{}}
	s.container.Annotations = map[string]string{criuConfig: "/etc/x.conf"}
	check := func(want Verdict, text string) {
		t.Helper()
		found := checkPolicy(s)
		if got := found[len(found)-1]; got.Verdict != want || !strings.Contains(got.Text, text) {
			t.Errorf("%+v", got)
		}
	}
	check(Fails, "it does not exist")
	f.write("/etc/x.conf", "file-locks\n", 0o644)
	check(Fails, "it does not list our hook")
	f.write("/etc/x.conf", "action-script "+hook+"\n", 0o644)
	check(OK, "it lists our hook")
}

// TestTraced finds a task that is traced already, and names the process that does it, of
// which a thread that is not the first one traces.
func TestTraced(t *testing.T) {
	s := start(t, nstest.New(t), "nothing")
	done := make(chan error)
	end := make(chan bool)
	var seize func()
	seize = func() { // ptrace(2) is a thread's: this one lets go of it by ending
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread() // while this one waits, the other runs elsewhere
			go seize()
			<-end
			return
		}
		if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(s.root().PID), 0, 0, 0, 0); errno != 0 {
			done <- errno
			return
		}
		done <- nil
		<-end
	}
	go seize()
	nstest.Must(t, <-done)
	first := checkTasks(s)[0]
	close(end)
	if first.Verdict != Fails || !strings.Contains(first.Text, "traced by pid "+fmt.Sprint(os.Getpid())) {
		t.Errorf("%+v", first)
	}
}

// TestRoots finds the one tree of a namespace, and names others there.
func TestRoots(t *testing.T) {
	ns := nstest.New(t)
	a, b := start(t, ns, "nothing"), start(t, ns, "udp")
	roots, err := Roots(ns)
	nstest.Must(t, err)
	if len(roots) != 2 || roots[0] != a.root().Ref && roots[1] != a.root().Ref {
		t.Errorf("%v", roots)
	}
	first := checkNetwork(a)[0]
	if first.Verdict != Note || !strings.Contains(first.Text, fmt.Sprintf("1 other processes live in it and are cut off with the tree while it is frozen: pid %d", b.root().PID)) {
		t.Errorf("%+v", first)
	}
}

// TestKernel tries everything in a namespace of its own, and leaves none behind.
func TestKernel(t *testing.T) {
	before, err := netns.All()
	nstest.Must(t, err)
	for _, found := range checkKernel(&Host{}) {
		if found.Verdict == Fails {
			t.Errorf("%+v", found)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		after, err := netns.All()
		nstest.Must(t, err)
		if len(after) <= len(before) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are %d namespaces, and were %d", len(after), len(before))
		}
		time.Sleep(10 * time.Millisecond)
	}
}
