package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxSize bounds what Load reads, in bytes.
const maxSize = 1 << 20

// maxLinks is how many symbolic links Load follows, the kernel's own limit.
const maxLinks = 40

// Load reads the configuration at path. A file that is not there is no error:
// the result is [Default]. Since what it says is done with root's rights, a
// file or a directory on the way to it that another than root can write is
// refused; a directory with the sticky bit, where nobody else can replace
// root's files, is not. A bad file gives a [Problems].
func Load(path string) (*Config, error) { return load(path, 0) }

// load is Load for the owner uid.
func load(path string, uid uint32) (*Config, error) {
	data, err := readTrusted(path, uid)
	if errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("load configuration: %w", err)
	}
	return Parse(data, path)
}

// readTrusted reads a small regular file that only its owner can change.
func readTrusted(path string, uid uint32) ([]byte, error) {
	target, err := trustedPath(path, uid)
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK: a FIFO is refused, not waited for.
	fd, err := syscall.Open(target, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: target, Err: err}
	}
	f := os.NewFile(uintptr(fd), target)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", target)
	}
	if err := trusted(target, info, uid); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("%s is larger than %d bytes", target, maxSize)
	}
	return data, nil
}

// trustedPath resolves the links in path by hand, so that every directory that
// has a say in which file is meant is seen and checked.
func trustedPath(path string, uid uint32) (string, error) {
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
		if err := trusted(dir, info, uid); err != nil {
			return "", err
		}
		name, more, _ := strings.Cut(rest, "/")
		next := filepath.Join(dir, name)
		info, err = os.Lstat(next)
		switch {
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
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

// trusted refuses what another than the owner or root can write.
func trusted(path string, info fs.FileInfo, uid uint32) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: owner unknown", path)
	}
	if st.Uid != uid && st.Uid != 0 {
		return fmt.Errorf("%s belongs to uid %d, not to root: chown root %s", path, st.Uid, path)
	}
	if info.Mode().Perm()&0o022 != 0 && !(info.IsDir() && info.Mode()&fs.ModeSticky != 0) {
		return fmt.Errorf("%s can be written by others than root (mode %04o): chmod go-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}
