// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestSharedPIDNamespace moves a container whose pid namespace is that of its pod
// (shareProcessNamespace: true). CRIU enters it for the tasks that it restores, and for
// the action-scripts, too, from where it has no number.
func TestSharedPIDNamespace(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("runc"), runtimeEngine("crun"))
	for _, e := range []engine{runtimeEngine("runc"), runtimeEngine("crun")} {
		t.Run(e.String(), func(t *testing.T) {
			p := newHosts(t)
			p.app.pidNS = pausedPIDNamespace(t)
			p.start(t, e, true, few)
			p.dumpAndMove(freeze(t))
			p.restore()
		})
	}
}

// pausedPIDNamespace makes a pid namespace with some processes in it, and returns its path.
func pausedPIDNamespace(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do /bin/true; done; exec sleep 3600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	poll(t, patience, "the pause process", func() error {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		if err == nil && !strings.HasPrefix(string(line), "sleep") {
			err = fmt.Errorf("it is %q", line)
		}
		return err
	})
	return fmt.Sprintf("/proc/%d/ns/pid", cmd.Process.Pid)
}
