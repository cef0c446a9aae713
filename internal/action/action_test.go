// SPDX-License-Identifier: Apache-2.0

package action_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// TestDoes says which script does what.
func TestDoes(t *testing.T) {
	scripts := []string{action.PreDumpScript, action.PostDumpScript, action.PreRestoreScript, action.PostResumeScript}
	for _, tc := range []struct {
		action  string
		scripts []string // besides netfreeze-hook, which does them all
	}{
		{action.PreDump, []string{"pre-dump"}},
		{action.NetworkLock, []string{"pre-dump"}},
		{action.PostDump, []string{"post-dump"}},
		{action.PreRestore, []string{"pre-restore"}},
		{action.PostSetupNS, []string{"pre-restore"}},
		{action.NetworkUnlock, []string{"post-dump", "post-resume"}},
		{action.PostResume, []string{"post-resume"}},
	} {
		if !action.Known(tc.action) {
			t.Errorf("CRIU has no action %q", tc.action)
		}
		if !action.Does("netfreeze-hook", tc.action) {
			t.Errorf("netfreeze-hook does not do %s", tc.action)
		}
		for _, name := range scripts {
			if got, want := action.Does(name, tc.action), slices.Contains(tc.scripts, name); got != want {
				t.Errorf("%s does %s: %v, want %v", name, tc.action, got, want)
			}
		}
		if action.Does("other", tc.action) {
			t.Errorf("a program of another name does %s", tc.action)
		}
		if got, want := action.Begins(tc.action), tc.action == "pre-dump" || tc.action == "pre-restore"; got != want {
			t.Errorf("%s begins a transaction: %v, want %v", tc.action, got, want)
		}
	}
}

// TestKnown has CRIU's other actions (action_names in criu/action-scripts.c), which no
// script does, and some names that are none.
func TestKnown(t *testing.T) {
	for name, known := range map[string]bool{
		"pre-stream":        true,
		"post-restore":      true,
		"setup-namespaces":  true,
		"pre-resume":        true,
		"orphan-pts-master": true,
		"status-ready":      true,
		"query-ext-files":   true,
		"":                  false,
		"dump":              false,
		"PRE-DUMP":          false,
		"pre-dump ":         false,
	} {
		if got := action.Known(name); got != known {
			t.Errorf("%q is known: %v, want %v", name, got, known)
		}
		for _, script := range []string{"netfreeze-hook", "pre-dump", "post-dump", "pre-restore", "post-resume"} {
			if action.Does(script, name) {
				t.Errorf("%s does %q", script, name)
			}
		}
		if action.Begins(name) {
			t.Errorf("%q begins a transaction", name)
		}
	}
}

func TestIsScript(t *testing.T) {
	for name, want := range map[string]bool{
		"netfreeze-hook":         true,
		"pre-dump":               true,
		"post-dump":              true,
		"pre-restore":            true,
		"post-resume":            true,
		"":                       false,
		"netfreeze":              false,
		"network-lock":           false, // an action
		"/usr/libexec/post-dump": false, // a path
	} {
		if got := action.IsScript(name); got != want {
			t.Errorf("IsScript(%q) = %v, want %v", name, got, want)
		}
	}
}

// TestLeaf makes sure that the package imports next to nothing: everything here is in
// the action-script, and much of it runs before any package is initialised.
func TestLeaf(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{join .Imports " "}}`, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if imports := strings.TrimSpace(string(out)); imports != "" {
		t.Errorf("package action imports %s", imports)
	}
}
