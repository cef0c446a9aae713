// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/inspect"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// TestInspect prints a sample, for people and as JSON.
func TestInspect(t *testing.T) {
	dir := t.TempDir()
	nstest.Must(t, os.CopyFS(dir, os.DirFS("../../testdata/images/external")))
	nstest.Must(t, os.WriteFile(filepath.Join(dir, "config.dump"), []byte(`{"id":"3f2a91","name":"web\u001b[2J","checkpointedTime":"2026-01-02T03:04:05Z"}`), 0o600))
	t.Setenv("TZ", "UTC")
	out, _, err := runCommand(newInspectCmd(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"container   web\\x1b[2J 3f2a91\n", "dumped      2026-01-02 03:04:05", "tasks       1: 50\n", "TCP connections: 2\n",
		"STATE  LOCAL          REMOTE          RECV-Q  SEND-Q  UNSENT  OPTIONS\n",
		"ESTAB  10.9.0.1:7000  10.9.0.1:39776  0       0       0       mss 65495 wscale 10,10 sack timestamps keepalive\n",
		"tcp  10.9.0.1:7000  backlog 4096\n", "network namespace  external: ", "by the key extRootNetNS\n",
		"addresses          10.9.0.1, ::1\n", "free ports         tcp/7000, tcp/7001, udp/7000, udp/7001\n", "tcp-established    yes\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it lacks %q:\n%s", want, out)
		}
	}
	out, _, err = runCommand(newInspectCmd(), dir, "-o", "json")
	var r inspect.Report
	if err != nil || json.Unmarshal([]byte(out), &r) != nil || len(r.Checkpoints) != 1 || r.Checkpoints[0].Connections[0].Remote.Port() != 39776 {
		t.Errorf("%v: %s", err, out)
	}
	for _, args := range [][]string{{}, {"/nowhere"}, {dir, "-o", "yaml"}, {dir, "--target", "/nowhere"}} {
		if _, _, err := runCommand(newInspectCmd(), args...); err == nil {
			t.Errorf("%v is not refused", args)
		}
	}
}

// TestInspectTarget says what is missing, a line each, and fails.
func TestInspectTarget(t *testing.T) {
	const dir = "../../testdata/images/external"
	self := []string{dir, "--target", "/proc/self/ns/net"}
	out, _, err := runCommand(newInspectCmd(), self...)
	if c, _ := code.Of(err); c != code.NoAddress || !strings.Contains(out, "it cannot be restored there now\nmissing: the address 10.9.0.1 is missing, of ") || !strings.Contains(out, " [NF501]\n") {
		t.Errorf("%v: %s", err, out)
	}
	out, _, err = runCommand(newInspectCmd(), append(self, "-o", "json")...)
	var r inspect.Report
	if json.Unmarshal([]byte(out), &r) != nil || err == nil || r.Checkpoints[0].Target.Restorable || r.Checkpoints[0].Target.Findings[0].Code != "NF501" {
		t.Errorf("%v: %s", err, out)
	}
}
