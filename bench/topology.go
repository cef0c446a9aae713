// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/testdata/delay"
)

// patience is the time limit for anything that is waited for.
const patience = 60 * time.Second

// netNS is a network namespace, kept open while it is used. The lab's own has no
// name.
type netNS struct {
	*netns.Namespace
	name string
}

// newNetNS creates a namespace with its loopback interface up.
func (b *bench) newNetNS(role string) (*netNS, error) {
	b.netnsCount++
	name := fmt.Sprintf("bench%d-%s", b.netnsCount, role)
	if _, err := command("ip", "netns", "add", name); err != nil {
		return nil, err
	}
	ns, err := netns.OpenPath("/run/netns/" + name)
	if err != nil {
		return nil, err
	}
	s := &netNS{ns, name}
	return s, s.ip("link set lo up")
}

// hostNetNS returns the lab's own namespace, which plays the host's.
func hostNetNS() (*netNS, error) {
	ns, err := netns.OpenSelf()
	return &netNS{ns, ""}, err
}

// remove deletes the namespace, its interface first.
func (s *netNS) remove() {
	_ = s.Close()
	if s.name != "" {
		_, _ = command("ip", "-n", s.name, "link", "del", "eth0")
		_, _ = command("ip", "netns", "del", s.name)
	}
}

// ip runs a batch of ip(8) commands inside.
func (s *netNS) ip(lines ...string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var out []byte
	err := s.Do(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		return fmt.Errorf("ip: %w: %s", err, out)
	}
	return nil
}

// The addresses of the two ends of a link.
var (
	appSide  = []string{"10.99.0.1", "fd99::1"}
	peerSide = []string{"10.99.0.2", "fd99::2"}
)

// join connects two namespaces by a veth pair, with addresses that are usable at
// once.
func join(app, peer *netNS) error {
	inner := "eth0"
	if app.name == "" {
		inner = "bench0"
	}
	err := peer.ip(fmt.Sprintf("link add eth0 type veth peer name %s netns %d", inner, os.Getpid()))
	if err == nil && app.name != "" {
		_, err = command("ip", "link", "set", inner, "netns", app.name)
	}
	if err != nil {
		return err
	}
	return errors.Join(app.bringUp(inner, appSide), peer.bringUp("eth0", peerSide))
}

// bringUp gives an interface its addresses, usable at once.
func (s *netNS) bringUp(dev string, addrs []string) error {
	return s.ip("link set "+dev+" addrgenmode none up", "addr add "+addrs[0]+"/24 dev "+dev,
		"addr add "+addrs[1]+"/64 dev "+dev+" nodad")
}

// joinFar connects two namespaces as join does, by a wire that takes a time each way. The
// wire is in a namespace of its own.
func joinFar(app, peer, way *netNS, oneWay time.Duration) (wire *delay.Wire, err error) {
	if err := way.ip("link add near type veth peer name eth0 netns "+app.name, "link add far type veth peer name eth0 netns "+peer.name,
		"link set near addrgenmode none up", "link set far addrgenmode none up"); err != nil {
		return nil, err
	}
	if err := errors.Join(app.bringUp("eth0", appSide), peer.bringUp("eth0", peerSide)); err != nil {
		return nil, err
	}
	err = way.Do(func() (err error) {
		wire, err = delay.New("near", "far", oneWay)
		return err
	})
	return wire, err
}

// command runs a program of the lab to its end and returns its output, standard
// error included.
func command(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// load is the tree that is dumped (the helper program load) and the other ends of
// its connections, which are in this process.
type load struct {
	app   *netNS
	pid   int
	ended atomic.Pointer[time.Time] // when it was reaped
	conns []net.Conn
	dir   string // the image directory
}

// port is where the program load listens.
const port = 7000

// startLoad starts the tree in app and connects to it from peer, with the
// connections distributed evenly over the addresses. When it returns, every
// connection has carried a byte each way.
func startLoad(app, peer *netNS, s shape, addrs []string) (*load, error) {
	dir, err := os.MkdirTemp("", "load")
	if err != nil {
		return nil, err
	}
	l := &load{app: app, dir: dir}
	args := []string{fmt.Sprint(s.processes), fmt.Sprint(s.threads), fmt.Sprint(s.connections), fmt.Sprint(port)}
	cmd := exec.Command(filepath.Join(built, "load"), append(args, addrs...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := app.Do(cmd.Start); err != nil {
		return nil, err
	}
	l.pid = cmd.Process.Pid
	// Reaped at once: a restore needs the pid to be free.
	go func() {
		_ = cmd.Wait()
		now := time.Now()
		l.ended.Store(&now)
	}()
	err = peer.Do(func() error { return l.connect(addrs, s.connections) })
	if err != nil {
		l.remove()
	}
	return l, err
}

func (l *load) connect(addrs []string, n int) error {
	dialer := net.Dialer{Timeout: patience, KeepAlive: -1}
	dialer.SetMultipathTCP(false)
	deadline := time.Now().Add(patience)
	for len(l.conns) < n {
		addr := net.JoinHostPort(addrs[len(l.conns)%len(addrs)], fmt.Sprint(port))
		c, err := dialer.Dial("tcp", addr)
		if err != nil {
			if time.Now().After(deadline) {
				return err
			}
			time.Sleep(5 * time.Millisecond)
			continue
		}
		l.conns = append(l.conns, c)
		if err := echo(c); err != nil {
			return err
		}
	}
	return nil
}

// echo sends a byte and waits for it to come back.
func echo(c net.Conn) error {
	one := []byte{1}
	if _, err := c.Write(one); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := io.ReadFull(c, one)
	return err
}

// remove ends the tree, which may have been restored, and closes the connections.
func (l *load) remove() {
	for _, c := range l.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	for _, pid := range append(children(l.pid), l.pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = waitUntil("end of the load", func() bool { return !exists(l.pid) })
	_ = os.RemoveAll(l.dir)
}

func children(pid int) (pids []int) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(data)) {
		var n int
		if _, err := fmt.Sscan(f, &n); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// exists reports whether there is a process, possibly a zombie, with this pid.
func exists(pid int) bool { return syscall.Kill(pid, 0) == nil }

// waitUntil polls until the condition holds, or patience is over.
func waitUntil(what string, holds func() bool) error { return waitUntilFor(patience, what, holds) }

func waitUntilFor(limit time.Duration, what string, holds func() bool) error {
	deadline := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: has not happened within %s", what, limit)
		}
		time.Sleep(500 * time.Microsecond)
	}
	return nil
}
