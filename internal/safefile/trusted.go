// SPDX-License-Identifier: Apache-2.0

package safefile

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// MaxLinks is how many symbolic links are followed in a path, which is the kernel's
// own limit (path_resolution(7)).
const MaxLinks = 40

// Read reads a regular file of at most limit bytes. The last element of path must
// not be a symbolic link. Anything but a regular file is refused; a FIFO is not
// waited for.
func Read(path string, limit int64) ([]byte, error) {
	f, _, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading
	return readAll(f, limit)
}

// ReadTrusted reads a regular file of at most limit bytes which nobody but root and
// owner could have changed or replaced. It follows symbolic links and checks every
// directory on the way, as [ResolveTrusted] does.
func ReadTrusted(path string, owner uint32, limit int64) ([]byte, error) {
	target, err := ResolveTrusted(path, owner)
	if err != nil {
		return nil, err
	}
	f, info, err := openRegular(target)
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading
	if err := CheckTrusted(target, info, owner); err != nil {
		return nil, err
	}
	return readAll(f, limit)
}

func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = code.New(code.Untrusted, fmt.Sprintf("%s is not a regular file", path))
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func readAll(f *os.File, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, code.New(code.TooLarge, fmt.Sprintf("%s is larger than %d bytes", f.Name(), limit))
	}
	return data, nil
}

// ResolveTrusted returns the path to which path leads, without symbolic links. It
// checks every directory that has a say in that with [CheckTrusted], but not what
// the path leads to in the end. It follows the links itself, since the kernel
// would not tell which directories they went through.
func ResolveTrusted(path string, owner uint32) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir, rest := "/", strings.TrimPrefix(path, "/")
	for links := 0; ; {
		info, err := os.Lstat(dir)
		if err != nil {
			return "", err
		}
		if err := CheckTrusted(dir, info, owner); err != nil {
			return "", err
		}
		name, more, _ := strings.Cut(rest, "/")
		next := filepath.Join(dir, name)
		info, err = os.Lstat(next)
		switch {
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > MaxLinks {
				return "", fmt.Errorf("%s: %w", path, syscall.ELOOP)
			}
			target, err := os.Readlink(next)
			if err != nil {
				return "", err
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(dir, target)
			}
			dir, rest = "/", strings.TrimPrefix(filepath.Join(target, more), "/")
		case more == "":
			return next, nil
		default:
			dir, rest = next, more
		}
	}
}

// OwnerError says that a file belongs to somebody who is not trusted.
type OwnerError struct {
	Path string
	UID  uint32 // the owner
}

func (e *OwnerError) Error() string {
	return code.Text(e.Code(), fmt.Sprintf("%s belongs to uid %d, not to root: chown root %s", e.Path, e.UID, e.Path))
}

// Code implements [code.Coder].
func (*OwnerError) Code() code.Code { return code.Untrusted }

// CheckTrusted refuses a file or directory that somebody other than root and owner
// could change. info is what path leads to, without following a link. A directory
// with the sticky bit may be writable by others, because they cannot replace
// root's files in it. The error is an [*OwnerError] or says what else is wrong and
// which command mends it.
func CheckTrusted(path string, info fs.FileInfo, owner uint32) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return code.New(code.Untrusted, fmt.Sprintf("%s: owner unknown", path))
	}
	if st.Uid != owner && st.Uid != 0 {
		return &OwnerError{Path: path, UID: st.Uid}
	}
	if info.Mode().Perm()&0o022 != 0 && !(info.IsDir() && info.Mode()&fs.ModeSticky != 0) {
		return code.New(code.Untrusted, fmt.Sprintf("%s can be written by others than root (mode %04o): chmod go-w %s", path, info.Mode().Perm(), path))
	}
	return nil
}
