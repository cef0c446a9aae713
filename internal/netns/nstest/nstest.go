// SPDX-License-Identifier: Apache-2.0

// Package nstest provides tests with network namespaces. It is for test binaries
// only, which must run as root.
package nstest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// insideVar tells the test binary that Main has moved it already.
const insideVar = "NETFREEZE_NSTEST_INSIDE"

// Main runs a package's tests, and is called by its TestMain. It runs them where
// they can do no harm and see what the project sees on a host: in pid, mount and
// network namespaces of their own, as pid 1, with a matching /proc. So what they
// take for the host's network namespace is a new one, with nothing but loopback
// in it, and everything ends with the test binary.
func Main(m *testing.M) {
	if os.Getenv(insideVar) != "" {
		if os.Getpid() == 1 { // otherwise a test has started its own binary
			if err := prepare(); err != nil {
				fmt.Fprintln(os.Stderr, "nstest:", err)
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	// Such tests mostly wait. If the caller gave -parallel, that counts.
	args := append([]string{"-test.parallel=12"}, os.Args[1:]...)
	cmd := exec.Command("/proc/self/exe", args...) // the test binary itself, with its own arguments
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL,
	}
	runtime.LockOSThread() // the death signal follows the thread, not the process
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "nstest: run the tests in namespaces of their own (they need root):", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// prepare mounts what the tests need in the new mount namespace.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// Network namespaces and the lock file of iptables are kept here.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return nil
}

// Must ends the test if err is an error.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// New makes a network namespace with loopback up, which is removed after the test.
func New(tb testing.TB) *netns.Namespace {
	tb.Helper()
	ns, err := netns.New()
	Must(tb, err)
	tb.Cleanup(func() { _ = ns.Close() })
	Run(tb, ns, "ip", "link", "set", "lo", "up")
	return ns
}

// Isolated makes a network namespace as New does, and returns it as one that may be
// frozen.
func Isolated(tb testing.TB) *netns.Isolated {
	tb.Helper()
	i, err := New(tb).Isolate()
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

// Run executes a command in ns and returns what it prints. The test ends if
// the command fails.
func Run(tb testing.TB, ns *netns.Namespace, name string, args ...string) string {
	tb.Helper()
	var out []byte
	err := ns.Do(func() error {
		var err error
		out, err = exec.Command(name, args...).CombinedOutput() // tests call it with constants
		return err
	})
	if err != nil {
		tb.Fatalf("%s %v in %s: %v\n%s", name, args, ns, err, out)
	}
	return string(out)
}

// Addresses of the two namespaces that Pair makes.
const (
	A4, A6 = "192.0.2.1", "2001:db8::1"
	B4, B6 = "192.0.2.2", "2001:db8::2"
)

// Pair makes two namespaces with a cable between them: each has a veth interface
// eth0, which is up, with the addresses A4 and A6 or B4 and B6. They can reach each
// other when Pair returns.
func Pair(tb testing.TB) (a, b *netns.Namespace) {
	tb.Helper()
	a, b = New(tb), New(tb)
	Run(tb, a, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.FD()))
	for ns, addrs := range map[*netns.Namespace][2]string{a: {A4, A6}, b: {B4, B6}} {
		Run(tb, ns, "ip", "addr", "add", addrs[0]+"/24", "dev", "eth0")
		Run(tb, ns, "ip", "addr", "add", addrs[1]+"/64", "dev", "eth0", "nodad")
		Run(tb, ns, "ip", "link", "set", "eth0", "up")
	}
	waitFor(tb, a, B4)
	waitFor(tb, a, B6)
	return a, b
}

// waitFor waits until an address answers, even if only by refusing a connection: it
// takes a moment until an interface passes the first packets.
func waitFor(tb testing.TB, from *netns.Namespace, addr string) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := from.Do(func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(addr, "9"), 50*time.Millisecond)
			if err == nil {
				err = c.Close()
			}
			return err
		})
		if err == nil || errors.Is(err, unix.ECONNREFUSED) {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%s cannot reach %s: %v", from, addr, err)
		}
	}
}
