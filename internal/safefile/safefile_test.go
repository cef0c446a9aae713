// SPDX-License-Identifier: Apache-2.0

package safefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// holds checks a file's content and mode, and that nothing is beside it.
func holds(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != content || info.Mode() != mode {
		t.Errorf("the file is %q with mode %v, want %q with %v", got, info.Mode(), content, mode)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v; want the file alone", entries, err)
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, tc := range []struct {
		content string
		mode    fs.FileMode
	}{{"one", 0o600}, {"", 0o644}, {"three", 0o600}} {
		if err := Write(path, []byte(tc.content), tc.mode); err != nil {
			t.Fatal(err)
		}
		holds(t, path, tc.content, tc.mode)
	}
	if err := Write(filepath.Join(path, "f"), nil, 0o600); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("in a directory that is none: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.MkdirAll(filepath.Join(dir, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 1 {
		t.Errorf("after an error there are %v, %v", left, err)
	}
}

func TestStage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	commit := func(content string) {
		t.Helper()
		s, err := Stage(path, []byte(content), 0o640)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
		s.Discard()
	}
	commit("new")
	holds(t, path, "new", 0o640)

	const attribute, value = "user.test", "kept"
	err := unix.Setxattr(path, attribute, []byte(value), 0)
	withAttributes := err == nil
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	if err := os.Chown(path, 1, 2); err != nil && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	before := owner(t, path)
	commit("changed")
	holds(t, path, "changed", 0o604)
	if now := owner(t, path); now != before {
		t.Errorf("the owner is %v, was %v", now, before)
	}
	if withAttributes {
		got := make([]byte, 16)
		if n, err := unix.Getxattr(path, attribute, got); err != nil || string(got[:n]) != value {
			t.Errorf("the extended attribute is %q, %v", got[:max(n, 0)], err)
		}
	}

	s, err := Stage(path, []byte("dropped"), 0o640)
	if err != nil {
		t.Fatal(err)
	}
	s.Discard()
	s.Discard()
	holds(t, path, "changed", 0o604)
	(*Staged)(nil).Discard()
}

func owner(t *testing.T, path string) [2]uint32 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}

// owned is a file's description with another owner, since only root can make
// a file that is somebody else's.
type owned struct {
	os.FileInfo
	uid uint32
}

func (o owned) Sys() any { return &syscall.Stat_t{Uid: o.uid} }

func TestCheckTrustedOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o644); err != nil { // a mode that is trusted
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, uid := range []uint32{0, 7} {
		if err := CheckTrusted("f", owned{info, uid}, 7); err != nil {
			t.Error(err)
		}
	}
	const want = "f belongs to uid 1000, not to root: chown root f [NF703]"
	if err := CheckTrusted("f", owned{info, 1000}, 0); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", path+".link"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path+".fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(path, 4); err != nil || string(got) != "1234" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, tc := range []struct {
		path  string
		limit int64
		want  string
	}{
		{path, 3, path + " is larger than 3 bytes [NF702]"},
		{path + ".fifo", 4, path + ".fifo is not a regular file [NF703]"},
		{filepath.Dir(path), 4, filepath.Dir(path) + " is not a regular file [NF703]"},
		{path + ".link", 4, "open " + path + ".link: too many levels of symbolic links"},
		{path + ".none", 4, "open " + path + ".none: no such file or directory"},
	} {
		if got, err := Read(tc.path, tc.limit); err == nil || err.Error() != tc.want {
			t.Errorf("%s: got %q, %v; want %s", tc.path, got, err, tc.want)
		}
	}
}
