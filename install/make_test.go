// SPDX-License-Identifier: Apache-2.0

package install

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// makeIn runs the Makefile with a target, a DESTDIR and other variables.
func makeIn(t *testing.T, dest, target string, vars ...string) {
	t.Helper()
	cmd := exec.Command("make", append([]string{"-C", "..", target, "DESTDIR=" + dest}, vars...)...)
	// What a make around the tests was told is not meant for this one.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "DESTDIR", "PREFIX", "SYSCONFDIR", "CNIBINDIR"}, name)
	})
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", target, err, out)
	}
}

// staged lists what is below a directory and is no directory, with its mode;
// and directories of the suite's own name.
func staged(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && d.Name() != "criu-netfreeze" {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		if info.Mode().Type() == fs.ModeSymlink {
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what = "-> " + target
		}
		found[strings.TrimPrefix(path, root)] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestMake installs into a staging directory, as a packager does, and takes
// all of it away again; only a configuration that somebody changed stays.
func TestMake(t *testing.T) {
	const (
		program = "-rwxr-xr-x"
		libexec = "/usr/local/libexec/criu-netfreeze"
		share   = "/usr/local/share/criu-netfreeze"
		toml    = "/etc/criu/netfreeze.toml"
	)
	want := map[string]string{
		"/usr/local/bin/netfreeze":     program,
		libexec:                        "drwxr-xr-x",
		libexec + "/netfreeze-hook":    program,
		libexec + "/netfreeze-settler": program,
		libexec + "/netfreeze-oci":     program,
		libexec + "/pre-dump":          "-> netfreeze-hook",
		libexec + "/post-dump":         "-> netfreeze-hook",
		libexec + "/pre-restore":       "-> netfreeze-hook",
		libexec + "/post-resume":       "-> netfreeze-hook",
		"/opt/cni/bin/netfreeze-cni":   program,
		share:                          "drwxr-xr-x",
		share + "/oci-hook.json":       "-rw-r--r--",
		share + "/alerts.yaml":         "-rw-r--r--",
		toml:                           "-rw-r--r--",
	}
	dest := t.TempDir()
	for range 2 { // the second one finds the first one's files
		makeIn(t, dest, "install")
		if diff := cmp.Diff(want, staged(t, dest)); diff != "" {
			t.Errorf("installed (-want +got):\n%s", diff)
		}
	}
	hook, err := os.ReadFile(filepath.Join(dest, share, "oci-hook.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(hook), libexec+"/netfreeze-oci") {
		t.Errorf("oci-hook.json does not name the installed program:\n%s", hook)
	}
	makeIn(t, dest, "uninstall")
	if left := staged(t, dest); len(left) > 0 {
		t.Errorf("left by uninstall: %v", left)
	}

	makeIn(t, dest, "install", "GO=/nonexistent") // what is built needs no Go
	const changed = "policy = \"run\"\n"
	if err := os.WriteFile(filepath.Join(dest, toml), []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	makeIn(t, dest, "install")
	makeIn(t, dest, "uninstall")
	if diff := cmp.Diff(map[string]string{toml: want[toml]}, staged(t, dest)); diff != "" {
		t.Errorf("left by uninstall (-want +got):\n%s", diff)
	}
	if now, err := os.ReadFile(filepath.Join(dest, toml)); err != nil || string(now) != changed {
		t.Errorf("a changed netfreeze.toml became %q, %v", now, err)
	}
}
