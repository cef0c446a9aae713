// SPDX-License-Identifier: Apache-2.0

// Package safefile writes files that another process may read at the same time, or
// after a crash, and reads files on whose content root acts.
package safefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Write replaces the file at path by one with this content and mode in one step:
// other processes read either all of the former content or all of the new one.
// After an error the former file is still there. The new one is not flushed to the
// disk.
func Write(path string, data []byte, mode fs.FileMode) error {
	s, err := stage(path, data, func(f *os.File) error { return f.Chmod(mode) })
	if err == nil {
		defer s.Discard()
		err = s.rename()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Staged is the new content of a file. It is stored beside the file until Commit
// puts it in the file's place.
type Staged struct {
	path string // the file that it is to replace
	temp string // where it is; empty after Commit or Discard
}

// Stage stores data as the new content of the file at path and flushes it to the
// disk. It gets the mode, owner and extended attributes (such as the SELinux label
// and the access control list) of the file that is there, or mode if there is none.
// The caller calls Commit or Discard.
func Stage(path string, data []byte, mode fs.FileMode) (*Staged, error) {
	s, err := stage(path, data, func(f *os.File) error {
		if err := copyProperties(f, path, mode); err != nil {
			return err
		}
		return f.Sync()
	})
	if err != nil {
		return nil, fmt.Errorf("write the new content of %s: %w", path, err)
	}
	return s, nil
}

// Commit replaces the file in one step, and makes that last through a crash.
func (s *Staged) Commit() error {
	if err := s.rename(); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(s.path))
}

// Discard removes the new content, unless it was committed. It may be called on a
// nil Staged.
func (s *Staged) Discard() {
	if s != nil && s.temp != "" {
		_ = os.Remove(s.temp)
		s.temp = ""
	}
}

func (s *Staged) rename() error {
	if err := os.Rename(s.temp, s.path); err != nil {
		return err
	}
	s.temp = ""
	return nil
}

// stage writes data to a new file in the directory of path. finish gives that file
// what is missing besides. Nothing is left behind by an error; see Writer for what a
// killed process leaves.
func stage(path string, data []byte, finish func(*os.File) error) (*Staged, error) {
	f, err := os.CreateTemp(filepath.Dir(path), fmt.Sprintf(".%s%s%d-*", filepath.Base(path), halfWritten, os.Getpid()))
	if err != nil {
		return nil, err
	}
	s := &Staged{path: path, temp: f.Name()}
	_, err = f.Write(data)
	if err == nil {
		err = finish(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		s.Discard()
		return nil, err
	}
	return s, nil
}

// halfWritten is in the name of a file that is being written, before its writer's pid.
const halfWritten = ".netfreeze-"

// Writer returns the pid of the process that writes, or was killed while it wrote, the
// file of this name; ok is false if it is no such file.
func Writer(name string) (pid int, ok bool) {
	_, rest, ok := strings.Cut(filepath.Base(name), halfWritten)
	text, _, ok2 := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(text)
	return pid, ok && ok2 && err == nil && pid > 0
}

// copyProperties gives f the mode, owner and extended attributes of the file at
// path, or just mode if there is none.
func copyProperties(f *os.File, path string, mode fs.FileMode) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		mode = info.Mode()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
				return err
			}
		}
		if err := copyAttributes(f, path); err != nil {
			return err
		}
	}
	return f.Chmod(mode) // last, since chown clears some of its bits
}

// copyAttributes gives f the extended attributes of another file.
func copyAttributes(f *os.File, from string) error {
	const limit = 64 << 10 // the kernel's, of a list and of a value (xattr(7))
	names := make([]byte, limit)
	n, err := unix.Llistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes of %s: %w", from, err)
	}
	value := make([]byte, limit)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(from, name, value)
		if err != nil {
			return fmt.Errorf("read extended attribute %s of %s: %w", name, from, err)
		}
		if err := unix.Fsetxattr(int(f.Fd()), name, value[:n], 0); err != nil {
			return fmt.Errorf("copy extended attribute %s of %s: %w", name, from, err)
		}
	}
	return nil
}

// SyncDir makes a rename or a removal in a directory last through a crash.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() // opened for reading
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
