// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// attempt is one call of CRIU.
type attempt struct {
	stage   string // dump or restore
	exit    int    // of the caller, -1 if that was killed
	began   time.Time
	ended   time.Time // of CRIU, or of the caller where no script has run
	logFile string
	callPID int

	mu    sync.Mutex
	criu  int
	pidfd int
	times map[string]time.Time // when each step was reached
	ticks uint64               // of the tree when it was dumped
	over  chan struct{}        // closed when the caller has ended
}

// reached notes a step.
func (a *attempt) reached(r *run, t *tree, at step) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pidfd < 0 {
		a.criu = at.criu
		a.pidfd, _ = unix.PidfdOpen(at.criu, 0)
	}
	if _, again := a.times[at.String()]; !again {
		a.times[at.String()] = time.Now()
	}
	if at.String() == "before:post-dump" {
		a.ticks = t.stats.Ticks()
	}
	r.logf("%s: %s (CRIU is %d)", t.id, at, at.criu)
}

// at returns when a step was reached.
func (a *attempt) at(step string) (when time.Time, reached bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	when, reached = a.times[step]
	return when, reached
}

// awaitEnd waits until CRIU has ended.
func (a *attempt) awaitEnd(limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		a.mu.Lock()
		fd := a.pidfd
		a.mu.Unlock()
		if fd < 0 {
			select {
			case <-a.over:
				return true
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if err == nil && n > 0 {
			return true
		}
	}
	return false
}

func (a *attempt) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pidfd >= 0 {
		_ = unix.Close(a.pidfd)
		a.pidfd = -1
	}
}

// succeeded reports what CRIU itself says in its log.
func (a *attempt) succeeded() bool {
	log, _ := os.ReadFile(a.logFile)
	return bytes.Contains(log, []byte("Dumping finished successfully")) || bytes.Contains(log, []byte("Restore finished successfully"))
}

// call calls CRIU, or the runtime, for a tree and waits until it has ended.
func (r *run) call(t *tree, stage string) *attempt {
	a := &attempt{
		stage: stage, pidfd: -1, times: map[string]time.Time{}, began: time.Now(), over: make(chan struct{}),
		logFile: filepath.Join(t.images(), stage+".log"),
	}
	t.mu.Lock()
	t.now = a
	t.mu.Unlock()
	argv, inherit := r.arguments(t, stage)
	if r.has(timeSpace) && stage == "dump" {
		argv = append([]string{"unshare", "--time", "--boottime", "1000000", "--monotonic", "1000000", "--fork"}, argv...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*commandPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, built+"/faults", append([]string{callerWord}, argv...)...)
	out, err := os.Create(filepath.Join(t.dir, stage+".out"))
	if err != nil {
		r.logf("%v", err)
		return a
	}
	defer out.Close()
	cmd.Env = os.Environ()
	if t.engine != runc { // a container inherits them, and they must be /dev/null
		cmd.Stdout, cmd.Stderr = out, out
	}
	if inherit != nil {
		defer inherit.Close()
		cmd.ExtraFiles, cmd.Env = []*os.File{inherit}, append(cmd.Env, inheritsWord+"=1")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		r.logf("%v", err)
		return a
	}
	a.mu.Lock()
	a.callPID = cmd.Process.Pid
	a.mu.Unlock()
	err = cmd.Wait()
	close(a.over)
	a.exit = cmd.ProcessState.ExitCode()
	if !a.awaitEnd(2 * commandPatience) {
		r.breaks("CRIU ends", "the CRIU of %s, %d, does not end", t.id, a.criu)
	}
	a.ended = time.Now()
	said, _ := os.ReadFile(out.Name())
	r.logf("%s of %s: %v; CRIU says success: %v; %s", stage, t.id, err, a.succeeded(), bytes.TrimSpace(said))
	return a
}

// caller returns the pid of what has called CRIU or the runtime for the first tree.
func (r *run) caller() int {
	a := r.pods[0].trees[0].attempt()
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.callPID
}

// arguments returns the command that dumps or restores a tree, and the file that it
// inherits as descriptor 3, if any.
func (r *run) arguments(t *tree, stage string) (argv []string, inherit *os.File) {
	leave := r.policy != killed
	if t.engine == runc {
		log := filepath.Join(t.dir, "runc.log")
		if stage == "dump" {
			argv = []string{runc, "--log", log, "checkpoint", "--image-path", t.images(), "--work-path", t.images(), "--tcp-established"}
			if leave {
				argv = append(argv, "--leave-running")
			}
			return append(argv, t.id), nil
		}
		return []string{
			runc, "--log", log, "restore", "--detach", "--bundle", t.dir, "--pid-file", filepath.Join(t.dir, "pid"),
			"--image-path", t.images(), "--work-path", t.images(), "--tcp-established", t.id,
		}, nil
	}
	argv = []string{"criu", stage, "-D", t.images(), "-o", stage + ".log", "-v4", "--tcp-established", "--no-default-config", "--network-lock", "skip"}
	for _, s := range r.scripts() {
		argv = append(argv, "--action-script", s)
	}
	const key = "extRootNetNS"
	if stage == "dump" {
		argv = append(argv, "-t", fmt.Sprint(t.pid), "--external", fmt.Sprintf("net[%d]:%s", t.pod.inode, key))
		if leave {
			argv = append(argv, "--leave-running")
		}
		return argv, nil
	}
	inherit, _ = os.Open("/run/netns/" + t.pod.app)
	return append(argv, "-d", "--inherit-fd", "fd[3]:"+key), inherit
}

// dumpAgain dumps the first tree once more, while it is being dumped.
func (r *run) dumpAgain() {
	t := r.pods[0].trees[0]
	second := filepath.Join(t.dir, "second")
	if err := os.MkdirAll(second, 0o755); err != nil {
		return
	}
	argv := []string{
		"criu", "dump", "-D", second, "-o", "dump.log", "-v4", "--tcp-established", "--no-default-config", "--network-lock", "skip",
		"--action-script", hookPath, "-t", fmt.Sprint(t.pid), "--external", fmt.Sprintf("net[%d]:extRootNetNS", t.pod.inode), "--leave-running",
	}
	_, err := runIn("", "", argv...)
	r.logf("the second dump: %v", err)
}

// startContainer starts the traffic program in a container of runc.
func (t *tree) startContainer(args []string) error {
	root := filepath.Join(t.dir, "root")
	for _, dir := range []string{"proc", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if _, err := runIn("", "", "cp", built+"/traffic", filepath.Join(root, "traffic")); err != nil {
		return err
	}
	all := []string{"CAP_NET_BIND_SERVICE", "CAP_KILL"}
	spec := specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "root"},
		Process: &specs.Process{
			Args: append(append([]string{"/traffic"}, args...), "--stats", "/data/stats", "--log", "/data/log"), Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all},
		},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			CgroupsPath: "/" + t.id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace, Path: "/run/netns/" + t.pod.app},
			},
		},
	}
	b, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(t.dir, "config.json"), b, 0o644)
	}
	if err != nil {
		return err
	}
	if err := t.runc("run", "--detach", "--bundle", t.dir, "--pid-file", filepath.Join(t.dir, "pid"), t.id); err != nil {
		return err
	}
	return t.readPid()
}

// runc runs runc with /dev/null as its standard files, which the container inherits.
func (t *tree) runc(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	log := filepath.Join(t.dir, "runc.log")
	if err := exec.CommandContext(ctx, runc, append([]string{"--log", log}, args...)...).Run(); err != nil {
		said, _ := os.ReadFile(log)
		return fmt.Errorf("runc %s: %w: %s", strings.Join(args, " "), err, said)
	}
	return nil
}

func (t *tree) readPid() error {
	b, err := os.ReadFile(filepath.Join(t.dir, "pid"))
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(string(b), &t.pid); err != nil {
		return errors.New("the runtime wrote no pid")
	}
	return nil
}
