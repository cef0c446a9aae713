// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// TestVersion prints the same as text, as JSON, and briefly by --version.
func TestVersion(t *testing.T) {
	Version, Commit = "v1.2.3", "0123abcd"
	defer func() { Version, Commit = "", "" }()
	out, _, err := runCommand(New(), "version", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var b built
	if err := json.Unmarshal([]byte(out), &b); err != nil {
		t.Fatal(err)
	}
	if b != build() || b.Version != Version || b.Commit != Commit || b.Protocol != action.Version {
		t.Errorf("it is %+v", b)
	}
	text, _, err := runCommand(New(), "version")
	for _, want := range []string{"v1.2.3", "0123abcd", b.Go, b.Platform} {
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s%v", want, text, err)
		}
	}
	if brief, _, err := runCommand(New(), "--version"); err != nil || brief != "netfreeze version v1.2.3\n" {
		t.Errorf("--version prints %q, %v", brief, err)
	}
}

// TestQuiet says nothing, but prints what it was asked for.
func TestQuiet(t *testing.T) {
	root, _ := installRoot(t, "file-locks\n")
	args := []string{"--root", root, "--hook", "/opt/netfreeze-hook", "--runtime", "runc"}
	for _, tc := range []struct {
		words []string
		says  bool
	}{
		{append([]string{"install", "--quiet", "--dry-run"}, args...), true},
		{append([]string{"install", "-q"}, args...), false},
		{[]string{"uninstall", "-q", "--root", root, "-o", "json"}, true},
		{append([]string{"install"}, args...), true},
		{[]string{"uninstall", "-q", "--root", root}, false},
		{[]string{"version", "-q"}, true},
	} {
		out, errOut, err := runCommand(New(), tc.words...)
		if err != nil || (out != "") != tc.says || errOut != "" {
			t.Errorf("%q: prints %q, %q, %v", tc.words, out, errOut, err)
		}
	}
	if _, _, err := runCommand(New(), "uninstall", "-q", "--root", root, "--runtime", "none"); err == nil {
		t.Error("an error is kept back")
	}
}
