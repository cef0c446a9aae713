// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// installRoot makes a root with the hook and a runc.conf in it.
func installRoot(t *testing.T, runcConf string) (root, conf string) {
	t.Helper()
	root = t.TempDir()
	conf = filepath.Join(root, "etc/criu/runc.conf")
	for path, content := range map[string]string{conf: runcConf, filepath.Join(root, "opt/netfreeze-hook"): ""} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root, conf
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestInstallAndUninstall(t *testing.T) {
	const before = "file-locks\ntcp-close"
	root, conf := installRoot(t, before)
	args := []string{"--root", root, "--hook", "/opt/netfreeze-hook", "--stop-after-dump", "run"}

	out, _, err := runCommand(newInstallCmd(), append(args, "--dry-run")...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--- /etc/criu/runc.conf\n", "+action-script /opt/netfreeze-hook\n", "+network-lock skip\n", " tcp-close\n", "+policy = \"run\"\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("dry run: no %q in\n%s", want, out)
		}
	}
	if got := readFile(t, conf); got != before {
		t.Errorf("dry run changed the file: %q", got)
	}

	out, errOut, err := runCommand(newInstallCmd(), args...)
	if err != nil {
		t.Fatal(err)
	}
	if want := "note: /etc/criu/crun.conf is missing: crun reads /etc/criu/runc.conf, which lists the hook\n/etc/criu/runc.conf: changed\n/etc/criu/netfreeze.toml: created\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if want := "warning: /etc/criu/runc.conf:7: tcp-close: "; !strings.HasPrefix(errOut, want) {
		t.Errorf("got %q, want %q first", errOut, want)
	}
	if line := strings.Split(readFile(t, conf), "\n")[6]; line != "tcp-close" {
		t.Errorf("line 7 is %q", line)
	}
	if out, _, err = runCommand(newInstallCmd(), args...); err != nil || !strings.HasSuffix(out, "nothing to change\n") {
		t.Errorf("second install: %q, %v", out, err)
	}

	out, _, err = runCommand(newUninstallCmd(), "--root", root, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got planView
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Changes) != 2 || got.Changes[0].Action != "changed" || got.Changes[1].Action != "removed" || got.DryRun {
		t.Errorf("got %+v", got)
	}
	if got := readFile(t, conf); got != before {
		t.Errorf("uninstall: got %q, want %q", got, before)
	}
}

func TestInstallRefuses(t *testing.T) {
	root, conf := installRoot(t, "")
	for want, args := range map[string][]string{
		`policy = "stop": not one of`:                                {"--stop-after-dump", "stop"},
		`network-lock "iptables": not one of nftables, skip [NF101]`: {"--network-lock", "iptables"},
		`runtime "docker": not one of runc, crun, default`:           {"--runtime", "docker"},
		`action-script "hook": must be an absolute path [NF802]`:     {"--hook", "hook"},
		`--output "xml": not one of text, json`:                      {"-o", "xml"},
		`install the suite first (make install), or name the scri`:   {},
	} {
		_, _, err := runCommand(newInstallCmd(), append(args, "--root", root)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %s in it", args, err, want)
		}
	}
	if got := readFile(t, conf); got != "" {
		t.Errorf("changed: %q", got)
	}
}
