// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// TestMain gives the tests a /run of their own.
func TestMain(m *testing.M) { nstest.Main(m) }

// saved is the record of a held tree that is this process.
func saved(t *testing.T, container string) *record.Record {
	t.Helper()
	st, err := proc.ReadStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	r := &record.Record{
		ID: "1@1", Op: record.Dump, Phase: record.Held, Stopped: true, Scope: record.NetNS,
		Container: identity.Container{ID: container}, Tree: []proc.Ref{{PID: os.Getpid(), Start: st.Start}},
	}
	r.ExpireIn(time.Minute)
	if err := record.MakeDir(); err != nil {
		t.Fatal(err)
	}
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(record.Dir) })
	return r
}

// TestTargetNumber takes a number for a process id, never for the beginning of a
// container's id: a process of that number may have ended.
func TestTargetNumber(t *testing.T) {
	saved(t, "4820aa11")
	for target, want := range map[string]int{"482": 0, "4820": 0, "4820a": 1, "4820aa11": 1, "4820b": 0} {
		if found, err := find(target); err != nil || len(found) != want {
			t.Errorf("%s: %d records, %v", target, len(found), err)
		}
	}
}

// TestUninstallRefused keeps the only program that can undo a hold.
func TestUninstallRefused(t *testing.T) {
	root, conf := installRoot(t, "tcp-close\n")
	if _, _, err := runCommand(newInstallCmd(), "--root", root, "--hook", "/opt/netfreeze-hook"); err != nil {
		t.Fatal(err)
	}
	r := saved(t, "web")
	for _, args := range [][]string{{"--dry-run"}, {}} {
		_, _, err := runCommand(newUninstallCmd(), args...)
		if err == nil || !strings.Contains(err.Error(), "netfreeze thaw web") || !strings.Contains(err.Error(), "--force") {
			t.Errorf("%v: %v", args, err)
		}
	}
	if _, _, err := runCommand(newUninstallCmd(), "--dry-run", "--force"); err != nil {
		t.Errorf("by force: %v", err)
	}
	before := readFile(t, conf)
	if _, _, err := runCommand(newUninstallCmd(), "--root", root); err != nil || readFile(t, conf) == before {
		t.Errorf("in another root: %v, the file is %q", err, readFile(t, conf))
	}
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := runCommand(newUninstallCmd(), "--dry-run"); err != nil {
		t.Errorf("with nothing held: %v", err)
	}
}

// TestStatusPrintable shows no character of a name that moves the cursor.
func TestStatusPrintable(t *testing.T) {
	var out bytes.Buffer
	err := writeTable(&out, []freeze.Status{{Container: "a\x1b[2Jb", Pod: "p\nq", Path: "/run/\x07", State: "held"}})
	if err != nil || strings.ContainsAny(out.String(), "\x1b\x07") || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("%q, %v", out.String(), err)
	}
}
