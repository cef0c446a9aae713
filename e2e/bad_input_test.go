// SPDX-License-Identifier: Apache-2.0

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

// TestTwice has CRIU call the hook twice for every action, as it does when it
// reads two configuration files that both name the hook.
func TestTwice(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"})
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

// TestMisuse calls the hook in ways that CRIU never would: the hook says what is
// wrong, and changes nothing.
func TestMisuse(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, plainCRIU{})
	topo := newTopology(t)
	app := topo.newHost("app")
	k := serve(t, plainCRIU{}, app)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	pid := func(n int) string { return fmt.Sprintf("CRTOOLS_INIT_PID=%d", n) }
	action := func(name string) string { return "CRTOOLS_SCRIPT_ACTION=" + name }
	// CRIU passes a descriptor of its own; a plain path must be refused.
	const images = "CRTOOLS_IMAGE_DIR=/proc/$$/fd/9"
	foreign := "CRTOOLS_IMAGE_DIR=" + k.images()
	const noBegin = "no pre-dump or pre-restore came before from this CRIU; nothing was changed"
	for name, test := range map[string]struct {
		environment []string
		message     string
	}{
		"no variables":            {nil, "NF105"},
		"unknown action":          {[]string{action("dump")}, `has the value "dump", which is no action of CRIU [NF105]`},
		"dump without a pid":      {[]string{action("pre-dump"), images}, "CRTOOLS_INIT_PID is not set"},
		"pid that is no number":   {[]string{action("pre-dump"), images, "CRTOOLS_INIT_PID=one"}, `CRTOOLS_INIT_PID is "one", not a process id; nothing was changed [NF105]`},
		"pid that is gone":        {[]string{action("pre-dump"), images, pid(gone.Process.Pid)}, "NF304"},
		"lock without a pre-dump": {[]string{action("network-lock"), images, pid(k.pid)}, noBegin},
		"post-dump alone":         {[]string{action("post-dump"), images, pid(k.pid)}, noBegin},
		"unlock alone":            {[]string{action("network-unlock"), images, pid(k.pid)}, noBegin},
		"namespaces alone":        {[]string{action("post-setup-namespaces"), images, pid(k.pid)}, noBegin},
		"resume alone":            {[]string{action("post-resume"), images, pid(k.pid)}, noBegin},
		"restore without images":  {[]string{action("pre-restore")}, "CRTOOLS_IMAGE_DIR is not set"},
		"restore of foreign ones": {[]string{action("pre-restore"), foreign}, "NF405"},
		"restore of nothing":      {[]string{action("pre-restore"), images}, "NF701"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, hosts := ruleset(t, app.netns), ruleset(t, "")
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			// Called by a shell that stays as the hook's parent, as CRIU does, and
			// ends after it.
			call := fmt.Sprintf("exec 9<%s; env %s %s; exit $?", k.images(), strings.Join(test.environment, " "), hook)
			cmd := exec.CommandContext(ctx, "sh", "-c", call)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
			output, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("the hook succeeded: %s", output)
			}
			if !strings.HasPrefix(string(output), "netfreeze: error: ") || !strings.Contains(string(output), test.message) {
				t.Errorf("the hook printed %q, want %q in it", output, test.message)
			}
			noRecords(t, app.netns, fmt.Sprint(cmd.Process.Pid))
			awaitRelease(t, back, app.netns, ours)
			awaitRelease(t, back, "", hosts)
			if err := k.healthy(); err != nil || !alive(k.pid) {
				t.Errorf("the task was harmed: %v", err)
			}
		})
	}
}

// TestNoBackend removes the tools of the selected back end: the dump fails and
// says why, and the task keeps running.
func TestNoBackend(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill", backend: "iptables-legacy"}, plainCRIU{})
	const tool = "/usr/sbin/xtables-legacy-multi"
	p := newPair(t, plainCRIU{}, true, few)
	mustRun(t, "", "", "mount", "--bind", "/dev/null", tool)
	err := p.dumped.engine.dump(p.dumped, true)
	mustRun(t, "", "", "umount", tool)
	if err == nil || !strings.Contains(err.Error(), "iptables") || !strings.Contains(err.Error(), "NF201") {
		t.Errorf("the dump should have failed because iptables is missing: %v", err)
	}
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
	p.checkAllBytes()
}
