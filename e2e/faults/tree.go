// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
	"golang.org/x/sys/unix"
)

// pod is a network namespace with trees in it, and the other end of their connections.
type pod struct {
	app, peer string // names of the namespaces
	rules     string // of app before the run
	inode     uint64
	trees     []*tree
	packets   *capture
	from      time.Time // when everything was up
}

// tree is a tree of processes that is dumped: a traffic program, and its client.
type tree struct {
	id     string
	dir    string
	engine string
	pod    *pod
	pid    int
	stats  *stats.File
	client *exec.Cmd
	peers  *stats.File // counters of the client
	told   answer
	state  state
	mu     sync.Mutex
	now    *attempt
	dumped *attempt
}

func (t *tree) images() string { return filepath.Join(t.dir, "images") }

func (t *tree) data(name string) string { return filepath.Join(t.dir, "root", "data", name) }

func (t *tree) attempt() *attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// newPod makes the namespaces and starts the programs.
func (r *run) newPod(n, trees int) (p *pod, err error) {
	p = &pod{app: fmt.Sprintf("app%d-%d", r.seed, n), peer: fmt.Sprintf("peer%d-%d", r.seed, n)}
	if err := newPair(p.app, p.peer); err != nil {
		return p, err
	}
	var ns unix.Stat_t
	if err := unix.Stat("/run/netns/"+p.app, &ns); err != nil {
		return p, err
	}
	p.inode = ns.Ino
	if p.rules, err = ruleset(p.app); err != nil {
		return p, err
	}
	for i := range trees {
		t := &tree{pod: p, engine: r.engine, id: fmt.Sprintf("f%d-%d-%d", r.seed, n, i)}
		t.dir = filepath.Join(r.dir, t.id)
		p.trees = append(p.trees, t)
		if err := t.start(r, 7000+i); err != nil {
			return p, fmt.Errorf("start %s: %w", t.id, err)
		}
	}
	started := time.Now()
	for _, t := range p.trees {
		if err := wait(patience, func() error { return t.carries(started) }); err != nil {
			return p, fmt.Errorf("before the dump: %w", err)
		}
	}
	if p.packets, err = startCapture(p.peer); err != nil {
		return p, err
	}
	p.from = time.Now()
	return p, nil
}

// patience is how long anything may take before the fault.
const patience = 20 * time.Second

// wait calls wrong until it returns nil or the time is over.
func wait(limit time.Duration, wrong func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := wrong()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// start starts the server, which will be dumped, and its client.
func (t *tree) start(r *run, port int) error {
	for _, dir := range []string{t.images(), filepath.Dir(t.data("x"))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	addrs := []string{fmt.Sprintf("%s:%d", app4, port)}
	if r.ipv6 {
		addrs = append(addrs, fmt.Sprintf("[%s]:%d", app6, port))
	}
	args := append([]string{"serve"}, r.pace()...)
	for _, a := range addrs {
		args = append(args, "--listen", a)
	}
	var err error
	if t.engine == runc {
		err = t.startContainer(args)
	} else {
		err = t.startPlain(r, args)
	}
	if err != nil {
		return err
	}
	if err := wait(patience, func() (err error) { t.stats, err = stats.Open(t.data("stats")); return err }); err != nil {
		return err
	}
	interval := ",interval=5ms"
	if r.has(many) {
		interval = ",interval=100ms"
	}
	args = append([]string{"connect"}, r.pace()...)
	args = append(args, "--stats", t.data("peers"), "--log", t.data("peers.log"), "--conn", "push"+interval, "--conn", "reqrep"+interval)
	if r.random.IntN(2) == 0 && !r.has(many) {
		args = append(args, "--conn", "bulk,interval=50ms")
	}
	for _, a := range addrs {
		args = append(args, "--peer", a)
	}
	t.client = exec.Command(built+"/traffic", args...)
	if err := within(t.pod.peer, t.client.Start); err != nil {
		return err
	}
	go t.client.Wait()
	return wait(patience, func() (err error) { t.peers, err = stats.Open(t.data("peers")); return err })
}

func (t *tree) startPlain(r *run, args []string) error {
	args = append(append([]string{built + "/traffic"}, args...), "--stats", t.data("stats"), "--log", t.data("log"))
	if r.has(forks) {
		args = append([]string{"/bin/sh", "-c", `"$@" & while :; do /bin/true; done`, "sh"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := within(t.pod.app, cmd.Start); err != nil {
		return err
	}
	t.pid = cmd.Process.Pid
	go cmd.Wait()
	return nil
}

// carries returns nil if every connection is whole and has carried bytes to the peer,
// or from it, after a time.
func (t *tree) carries(after time.Time) error {
	if err := t.whole(); err != nil {
		return err
	}
	last := map[uint64]int64{}
	for _, s := range t.stats.Snapshots() {
		last[s.ID] = s.LastAt
	}
	conns := t.peers.Snapshots()
	if len(conns) == 0 {
		return errors.New("there is no connection yet")
	}
	for _, s := range conns {
		if max(s.LastAt, last[s.ID]) <= after.UnixNano() {
			return fmt.Errorf("connection %d (port %d) is silent", s.ID, s.LocalPort)
		}
	}
	return nil
}

// whole returns an error if a connection of either side has ended or lost anything.
func (t *tree) whole() error {
	for side, file := range map[string]*stats.File{"app": t.stats, "peer": t.peers} {
		for _, s := range file.Snapshots() {
			if s.State != stats.Established && s.State != stats.Opening || s.Lost+s.Doubled+s.Corrupt+s.Errors > 0 {
				return fmt.Errorf("%s: connection %d is %s: %d bytes lost, %d doubled, %d corrupt, %d errors",
					side, s.ID, s.State, s.Lost, s.Doubled, s.Corrupt, s.Errors)
			}
		}
	}
	return nil
}

// settled returns nil if every byte that was sent has arrived.
func (t *tree) settled() error {
	if err := t.whole(); err != nil {
		return err
	}
	app := map[uint64]stats.Snapshot{}
	for _, s := range t.stats.Snapshots() {
		app[s.ID] = s
	}
	for _, c := range t.peers.Snapshots() {
		if s := app[c.ID]; c.Sent != s.Received || s.Sent != c.Received {
			return fmt.Errorf("connection %d: the peer sent %d, the app received %d; the app sent %d, the peer received %d",
				c.ID, c.Sent, s.Received, s.Sent, c.Received)
		}
	}
	return nil
}

// quiet has both sides stop sending.
func (t *tree) quiet() {
	for _, pid := range append(treeOf(t.pid), t.client.Process.Pid) {
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); strings.HasSuffix(exe, "/traffic") {
			_ = unix.Kill(pid, unix.SIGUSR1)
		}
	}
}

// treeOf returns the tree that a CRIU works on: its command line, or that of the
// runtime above, names the images.
func (r *run) treeOf(criu int) *tree {
	all := r.trees()
	if len(all) == 1 {
		return all[0]
	}
	line, _ := os.ReadFile("/proc/" + strconv.Itoa(criu) + "/cmdline")
	i := slices.IndexFunc(all, func(t *tree) bool { return strings.Contains(string(line), t.images()+"\x00") })
	if i < 0 {
		return nil
	}
	return all[i]
}

// pace has the programs of many pods at once leave the machine some time for the rest.
func (r *run) pace() []string {
	if r.has(many) {
		return []string{"--beat", "20ms"}
	}
	return nil
}
