//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTwice has every action called twice, as by a CRIU that reads its
// configuration twice.
func TestTwice(t *testing.T) {
	withSuite(t, settings{policy: "kill"})
	for _, name := range []string{"default.conf", "runc.conf", "crun.conf"} {
		f, err := os.OpenFile(filepath.Join(criuDir, name), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(f, "action-script %s\n", hook); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	forEngines(t, func(t *testing.T, e engine) {
		newPair(t, e, true, few).moveAway()
	})
}

// TestMisuse calls the hook as CRIU never would: it says what is wrong, and
// changes nothing.
func TestMisuse(t *testing.T) {
	withSuite(t, settings{policy: "kill"})
	w := newWorld(t)
	app := w.newHost("app")
	k := serve(t, plainCRIU{}, app)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	pid := func(n int) string { return fmt.Sprintf("CRTOOLS_INIT_PID=%d", n) }
	images := "CRTOOLS_IMAGE_DIR=" + k.images()
	for name, environment := range map[string][]string{
		"no variables":            nil,
		"dump without a pid":      {"CRTOOLS_SCRIPT_ACTION=pre-dump", images},
		"pid that is no number":   {"CRTOOLS_SCRIPT_ACTION=pre-dump", images, "CRTOOLS_INIT_PID=one"},
		"pid that is gone":        {"CRTOOLS_SCRIPT_ACTION=pre-dump", images, pid(gone.Process.Pid)},
		"lock without a pre-dump": {"CRTOOLS_SCRIPT_ACTION=network-lock", images, pid(k.pid)},
		"post-dump alone":         {"CRTOOLS_SCRIPT_ACTION=post-dump", images, pid(k.pid)},
		"restore without images":  {"CRTOOLS_SCRIPT_ACTION=pre-restore"},
		"restore of nothing":      {"CRTOOLS_SCRIPT_ACTION=pre-restore", images},
		"unlock alone":            {"CRTOOLS_SCRIPT_ACTION=network-unlock", images, pid(k.pid)},
	} {
		t.Run(name, func(t *testing.T) {
			ours, hosts := ruleset(t, app.netns), ruleset(t, "")
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			// By a parent that ends with it, as CRIU does; the shell stays.
			cmd := exec.CommandContext(ctx, "sh", "-c", hook+"; exit $?")
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, environment...)
			said, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("the hook succeeded: %s", said)
			}
			if !strings.Contains(string(said), "netfreeze") {
				t.Errorf("the hook does not say what is wrong: %q", said)
			}
			released(t, back, app.netns, ours)
			released(t, back, "", hosts)
			noRecords(t, app.netns)
			if err := k.healthy(); err != nil || !alive(k.pid) {
				t.Errorf("the task has suffered: %v", err)
			}
		})
	}
}

// TestNoBackend takes the tools of the chosen back end away: the dump fails,
// says why, and the task goes on.
func TestNoBackend(t *testing.T) {
	withSuite(t, settings{policy: "kill", backend: "iptables-legacy"})
	const tool = "/usr/sbin/xtables-legacy-multi"
	p := newPair(t, plainCRIU{}, true, few)
	mustRun(t, "", "", "mount", "--bind", "/dev/null", tool)
	err := p.dumped.engine.dump(p.dumped, true)
	mustRun(t, "", "", "umount", tool)
	if err == nil || !strings.Contains(err.Error(), "iptables") {
		t.Errorf("the dump should fail for want of iptables: %v", err)
	}
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
	p.settle()
}
