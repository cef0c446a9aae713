// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree is a root directory for one test.
type tree struct {
	*testing.T
	root string
}

// newTree makes a root with the scripts in it, and without /etc/criu.
func newTree(t *testing.T) tree {
	t.Helper()
	tr := tree{t, t.TempDir()}
	for _, s := range []string{hookName, "pre-dump", "post-dump", "pre-restore", "post-resume"} {
		tr.write(filepath.Join(filepath.Dir(hook), s), "", 0o755)
	}
	tr.mkdir("/etc")
	return tr
}

func (t tree) path(p string) string { return filepath.Join(t.root, p) }

func (t tree) mkdir(p string) {
	t.Helper()
	if err := os.MkdirAll(t.path(p), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (t tree) write(p, content string, mode os.FileMode) {
	t.Helper()
	t.mkdir(filepath.Dir(p))
	if err := os.WriteFile(t.path(p), []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(t.path(p), mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

// snapshot describes everything below /etc.
func (t tree) snapshot() map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(t.path("/etc"), func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		s := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s += " " + string(content)
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			s += " -> " + target
		}
		files[strings.TrimPrefix(p, t.root)] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (t tree) same(what string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, t.snapshot()); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}

func (t tree) options(runtimes ...string) Options {
	return Options{Root: t.root, Runtimes: runtimes, Hook: hook}
}

func (t tree) install(o Options) *Plan {
	t.Helper()
	p, err := PlanInstall(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (t tree) uninstall(runtimes ...string) *Plan {
	t.Helper()
	p, err := PlanUninstall(Options{Root: t.root, Runtimes: runtimes})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (t tree) has(path, text string) {
	t.Helper()
	content, err := os.ReadFile(t.path(path))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), text) {
		t.Errorf("%s: no %q in\n%s", path, text, content)
	}
}

func (t tree) missing(path string) {
	t.Helper()
	if _, err := os.Lstat(t.path(path)); err == nil {
		t.Errorf("%s is there", path)
	}
}
