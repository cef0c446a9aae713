// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

// runCommand runs one command with its arguments and returns what it prints.
func runCommand(cmd *cobra.Command, args ...string) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.Execute()
	return out.String(), errOut.String(), err
}

// configFile writes a configuration for one test.
func configFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netfreeze.toml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigCheck(t *testing.T) {
	path := configFile(t, "policy = \"kill\"\n[[container]]\npod = \"a/*\"\nttl = \"1h\"\n")
	out, _, err := runCommand(newConfigCmd(), "check", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{path + ": OK\n", "policy = \"kill\"\n", "drain = \"100ms\"\n", "pod = \"a/*\"\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	out, _, err = runCommand(newConfigCmd(), "check", path, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		OK     bool
		Config configView
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if !got.OK || got.Config.Policy != config.Kill || got.Config.Containers[0].TTL != "1h" || got.Config.Containers[0].Line != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestConfigCheckProblems(t *testing.T) {
	path := configFile(t, "polcy = 1\nttl = 1\n")
	want := []string{path + `:1: unknown key "polcy"`, path + `:2: ttl = 1: must be a duration`}
	_, _, err := runCommand(newConfigCmd(), "check", path)
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("got %v, want %s in it", err, w)
		}
	}
	out, _, err := runCommand(newConfigCmd(), "check", path, "-o", "json")
	if err == nil {
		t.Error("no error with -o json")
	}
	var got struct {
		OK       bool
		Problems []config.Problem
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.OK || len(got.Problems) != 2 || got.Problems[1].Line != 2 {
		t.Errorf("got %+v", got)
	}
	if _, _, err := runCommand(newConfigCmd(), "check", filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file that was named is OK")
	}
	if _, _, err := runCommand(newConfigCmd(), "check", path, "-o", "yaml"); err == nil || !strings.Contains(err.Error(), "not one of text, json") {
		t.Errorf("-o yaml: %v", err)
	}
}
