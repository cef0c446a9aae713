// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// me is the owner of what the tests write, in the place of root.
func me() uint32 { return uint32(os.Geteuid()) }

func write(t *testing.T, path, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

func mkdir(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	if err := os.Mkdir(path, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func symlink(t *testing.T, target, path string) string {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	dir := mkdir(t, filepath.Join(t.TempDir(), "d"), 0o755)
	file := write(t, filepath.Join(dir, "good"), "policy = \"run\"\n", 0o644)
	mkdir(t, filepath.Join(dir, "sub"), 0o755)
	for name, path := range map[string]string{
		"file":             file,
		"symbolic link":    symlink(t, "good", filepath.Join(dir, "link")),
		"link to absolute": symlink(t, file, filepath.Join(dir, "sub", "link")),
		"linked directory": filepath.Join(symlink(t, "../d", filepath.Join(dir, "here")), "good"),
	} {
		c, err := load(path, me())
		if err != nil || c.Policy != Run {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	for _, missing := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "no", "ne")} {
		c, err := load(missing, me())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Default(), c, cmpopts.IgnoreUnexported(Config{})); diff != "" {
			t.Error("missing file:", diff)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := mkdir(t, filepath.Join(t.TempDir(), "d"), 0o755)
	in := func(name string) string { return filepath.Join(dir, name) }
	open := mkdir(t, in("open"), 0o777)
	fifo := in("fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ path, want string }{
		"writable by the group":      {write(t, in("group"), "", 0o664), "can be written by others than root (mode 0664): chmod go-w"},
		"writable by all":            {write(t, in("all"), "", 0o602), "can be written by others than root (mode 0602)"},
		"directory open to all":      {write(t, filepath.Join(open, "f"), "", 0o644), "open can be written by others than root (mode 0777)"},
		"missing in such a one":      {filepath.Join(open, "none"), "open can be written by others than root (mode 0777)"},
		"link through such a one":    {symlink(t, "open/f", in("through")), "open can be written by others than root (mode 0777)"},
		"link that lies in such one": {symlink(t, "../group", filepath.Join(open, "link")), "open can be written by others than root (mode 0777)"},
		"FIFO":                       {fifo, "fifo is not a regular file [NF703]"},
		"directory":                  {dir, "d is not a regular file"},
		"loop":                       {symlink(t, "loop", in("loop")), "too many levels of symbolic links"},
		"too large":                  {write(t, in("large"), strings.Repeat("#", maxSize+1), 0o644), "large is larger than 1048576 bytes"},
		"bad value":                  {write(t, in("bad"), "\npolicy = 1", 0o644), "bad:2: policy = 1: must be a string"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := load(tt.path, me())
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q in it", err, tt.want)
			}
		})
	}
}
