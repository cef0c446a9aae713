// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOneFile installs into a single configuration file, and moves a task with
// an engine that reads that file, either its own or one that it falls back to.
// The hook runs once per action.
func TestOneFile(t *testing.T) {
	criu, runc, crun := plainCRIU{}, runtimeEngine("runc"), runtimeEngine("crun")
	for _, test := range []struct{ engine, file engine }{{criu, criu}, {runc, runc}, {crun, crun}, {crun, runc}} {
		file := configOf(test.file) + ".conf"
		t.Run(test.engine.String()+","+file, func(t *testing.T) {
			withNetfreeze(t, settings{policy: "kill"}, test.file)
			p := newPair(t, test.engine, true, mixed)
			p.moveAway()
			confs, err := filepath.Glob(filepath.Join(criuDir, "*.conf"))
			if err != nil {
				t.Fatal(err)
			}
			if want := []string{filepath.Join(criuDir, file)}; !slices.Equal(confs, want) {
				t.Errorf("CRIU was configured by %v, want %v", confs, want)
			}
			for log, actions := range map[string][]string{
				"dump.log":    {"pre-dump", "network-lock", "post-dump", "network-unlock"},
				"restore.log": {"pre-restore", "post-setup-namespaces", "network-unlock", "post-resume"},
			} {
				for _, action := range actions {
					if n := p.dumped.hookRuns(log, action); n != 1 {
						t.Errorf("%s: the hook ran %d times at %s", log, n, action)
					}
				}
			}
		})
	}
}

// hookRuns counts in CRIU's log how many times CRIU ran the hook for an action:
// CRIU logs the action first, and then each script in brackets.
func (k *task) hookRuns(log, action string) int {
	k.t.Helper()
	text, err := os.ReadFile(filepath.Join(k.images(), log))
	if err != nil {
		k.t.Fatal(err)
	}
	count, now := 0, ""
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(line, "Running "); ok && strings.HasSuffix(rest, " scripts\n") {
			now = strings.TrimSuffix(rest, " scripts\n")
		} else if now == action && strings.HasSuffix(line, "["+hook+"]\n") {
			count++
		}
	}
	return count
}
