// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// engine is a program that runs, dumps and restores tasks. A task is run or
// restored in its host's current namespace.
type engine interface {
	fmt.Stringer
	// start runs the traffic program and sets the task's pid.
	start(k *task, args []string)
	// dump writes the images and, with leaveRunning, asks CRIU to leave the task
	// running.
	dump(k *task, leaveRunning bool, options ...string) error
	// restore brings the task back from its images and sets its pid.
	restore(k *task, options ...string) error
	// remove ends what is left of the task, so that it can be restored.
	remove(k *task)
}

// engines are the engines that tests run with by default.
var engines = []engine{plainCRIU{}, runtimeEngine("runc"), runtimeEngine("crun")}

// forEngines runs a test with each engine, in parallel.
func forEngines(t *testing.T, test func(t *testing.T, e engine)) {
	for _, e := range engines {
		t.Run(e.String(), func(t *testing.T) {
			t.Parallel()
			test(t, e)
		})
	}
}

// plainCRIU is the criu command. Its tasks live in the lab's own namespaces,
// except for the network namespace.
type plainCRIU struct{}

func (plainCRIU) String() string { return "criu" }

// netnsKey is the name of the external network namespace in the images.
const netnsKey = "extRootNetNS"

func (plainCRIU) start(k *task, args []string) {
	k.t.Helper()
	args = append([]string{trafficProgram}, args...)
	args = append(args, "--stats", k.data("stats"), "--log", k.data("log"))
	cmd := newCommand(context.Background(), k.host.netns, args...)
	cmd.Dir = "/"
	// A session of its own: CRIU cannot dump a task of the caller's session.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.start(); err != nil {
		k.t.Fatal(err)
	}
	k.pid = cmd.Process.Pid
	// Reaped at once: the restore needs the pid to be free.
	go func() { _ = cmd.Wait() }()
}

func (plainCRIU) dump(k *task, leaveRunning bool, options ...string) error {
	return dumpBy([]string{"criu"}, k, leaveRunning, options...)
}

// dumpBy dumps with a command that runs CRIU.
func dumpBy(criu []string, k *task, leaveRunning bool, options ...string) error {
	args := append(criu, "dump", "-t", fmt.Sprint(k.pid), "-D", k.images(), "-o", "dump.log", "-v4", "--tcp-established")
	if k.host.netns != "" {
		var ns syscall.Stat_t
		if err := syscall.Stat(netnsPath(k.host.netns), &ns); err != nil {
			return err
		}
		args = append(args, "--external", fmt.Sprintf("net[%d]:%s", ns.Ino, netnsKey))
	}
	if leaveRunning {
		args = append(args, "--leave-running")
	}
	_, err := runIn("", "", append(args, options...)...)
	return withLog(err, filepath.Join(k.images(), "dump.log"))
}

func (plainCRIU) restore(k *task, options ...string) error {
	args := []string{
		"criu", "restore", "-D", k.images(), "-o", "restore.log", "-v4", "--tcp-established", "-d",
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var inherited []*os.File
	if k.host.netns != "" {
		ns, err := os.Open(netnsPath(k.host.netns))
		if err != nil {
			return err
		}
		defer ns.Close()
		inherited = append(inherited, ns)
		args = append(args, "--inherit-fd", "fd[3]:"+netnsKey)
	}
	cmd := newCommand(ctx, "", append(args, options...)...)
	cmd.ExtraFiles = inherited
	return withLog(cmd.Run(), filepath.Join(k.images(), "restore.log"))
}

func (plainCRIU) remove(k *task) { end(k.t, k.pid) }

// withLog adds an excerpt of CRIU's log to an error.
func withLog(err error, path string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w:\n%s", err, logExcerpt(path))
}

// logExcerpt returns the lines of CRIU's log that matter: the last errors and
// our own messages.
func logExcerpt(path string) string {
	log, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	var excerpt []string
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "Error") || strings.Contains(line, "netfreeze") {
			excerpt = append(excerpt, line)
		}
	}
	return strings.Join(excerpt[max(0, len(excerpt)-30):], "")
}

// awaitStop waits until the task does not run any more: it has ended, or is in
// state T.
func (k *task) awaitStop() {
	k.t.Helper()
	poll(k.t, time.Second, k.id+" to stop", func() error {
		if state, err := processState(k.pid); err == nil && !strings.ContainsRune("TZX", rune(state)) {
			return fmt.Errorf("in state %c", state)
		}
		return nil
	})
}
