// SPDX-License-Identifier: Apache-2.0

package install

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/safefile"
)

// described is a file's description with another owner and mode, since only
// root can make a file that is somebody else's.
type described struct {
	os.FileInfo
	uid  uint32
	mode fs.FileMode
}

func (d described) Sys() any          { return &syscall.Stat_t{Uid: d.uid} }
func (d described) Mode() fs.FileMode { return d.mode }
func (d described) IsDir() bool       { return d.mode.IsDir() }

func TestUntrusted(t *testing.T) {
	tests := []struct {
		uid  uint32
		mode fs.FileMode
		want string
	}{
		{0, 0o755, ""},
		{0, fs.ModeDir | fs.ModeSticky | 0o777, ""},
		{1000, 0o755, "f does not belong to root: chown root f [NF802]"},
		{0, 0o775, "f can be written by others than root (mode 0775): chmod go-w f [NF703]"},
		{0, fs.ModeSticky | 0o777, "f can be written by others than root (mode 0777): chmod go-w f [NF703]"},
		{0, fs.ModeDir | 0o757, "f can be written by others than root (mode 0757): chmod go-w f [NF703]"},
	}
	for _, tt := range tests {
		got := ""
		if err := ownerMessage(safefile.CheckTrusted("f", described{uid: tt.uid, mode: tt.mode}, 0)); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("uid %d, %s: got %q, want %q", tt.uid, tt.mode, got, tt.want)
		}
	}
}

// Without another root the owner counts, up to the root directory.
func TestCheckScriptChecksDirectories(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(open, hookName)
	if err := os.WriteFile(script, nil, 0o755); err != nil { // a program
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil { // what is to be refused
		t.Fatal(err)
	}
	if err := checkScript(open, "/"+hookName); err != nil {
		t.Errorf("in another root: %v", err)
	}
	want := open + " can be written by others than root"
	if os.Geteuid() != 0 {
		want = "does not belong to root"
	}
	if err := checkScript("/", script); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s in it", err, want)
	}
}

// A link is as good as the directory in which it lies: whoever can replace it
// chooses the script.
func TestCheckScriptChecksLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files that belong to root")
	}
	dir := t.TempDir()
	script, open := filepath.Join(dir, hookName), filepath.Join(dir, "open")
	if err := os.WriteFile(script, nil, 0o755); err != nil { // a program
		t.Fatal(err)
	}
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(open, "link")
	if err := os.Symlink(script, link); err != nil {
		t.Fatal(err)
	}
	if err := checkScript("/", link); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(open, 0o777); err != nil { // what is to be refused
		t.Fatal(err)
	}
	want := open + " can be written by others than root"
	if err := checkScript("/", link); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s in it", err, want)
	}
}

func TestDefaultHook(t *testing.T) {
	want := filepath.Join(LibexecDir, hookName)
	for _, root := range []string{"", "/", "/image"} { // nothing is installed beside a test
		if got := DefaultHook(root); got != want {
			t.Errorf("root %q: got %s, want %s", root, got, want)
		}
	}
}

func TestResolveStaysWithinRoot(t *testing.T) {
	tr := newTree(t)
	for link, target := range map[string]string{
		"/etc/up":       "../../../../etc/inside",
		"/etc/absolute": "/etc/inside",
		"/etc/dir":      "/etc",
	} {
		if err := os.Symlink(target, tr.path(link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"/etc/up", "/etc/absolute", "/etc/dir/absolute", "/etc/dir/../etc/inside"} {
		got, err := resolve(tr.root, p)
		if want := tr.path("/etc/inside"); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", p, got, err, want)
		}
	}
}
