package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSize bounds what is read of a configuration file, in bytes.
const maxSize = 1 << 20

// maxLinks is how many symbolic links are followed, the kernel's own limit.
const maxLinks = 40

// defaultMode is that of files made here, dirMode that of directories.
const (
	defaultMode fs.FileMode = 0o644
	dirMode     fs.FileMode = 0o755
)

// Change is what happens to one file.
type Change struct {
	// Path is the file's path within the root.
	Path string
	// Before and After are its content; nil is a file that is not there.
	Before, After []byte

	target  string // the path to write, links resolved, root included
	makeDir bool   // its directory is to be made
	rmDir   bool   // its directory is to be removed if that leaves it empty
}

// changed reports whether there is anything to do.
func (c *Change) changed() bool {
	return (c.Before == nil) != (c.After == nil) || !bytes.Equal(c.Before, c.After)
}

// Action names what happens to the file in the past tense: kept, created,
// changed or removed.
func (c *Change) Action() string {
	switch {
	case !c.changed():
		return "kept"
	case c.Before == nil:
		return "created"
	case c.After == nil:
		return "removed"
	}
	return "changed"
}

// open reads the file at path within root and starts a change that leaves it
// as it is.
func open(root, path string) (*Change, error) {
	target, err := resolve(root, path)
	if err != nil {
		return nil, err
	}
	c := &Change{Path: path, target: target}
	if c.Before, err = read(target); err != nil {
		return nil, err
	}
	c.After = c.Before
	if _, err := os.Stat(filepath.Dir(target)); errors.Is(err, fs.ErrNotExist) {
		c.makeDir = true
	}
	return c, nil
}

// read returns the content of a regular file, nil where there is none.
func read(path string) ([]byte, error) {
	// O_NONBLOCK: a FIFO is refused, not waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxSize)
	}
	return data, nil
}

// resolve follows the links of path within root, where an absolute link starts
// at root again, and returns the path to write as this process sees it. The
// last part, or several, need not exist.
func resolve(root, path string) (string, error) {
	done, rest := "/", path
	for links := 0; ; {
		name, more, _ := strings.Cut(strings.TrimLeft(rest, "/"), "/")
		if name == "" {
			return filepath.Join(root, done), nil
		}
		next := filepath.Join(done, name) // an absolute path: .. ends at the root
		rest = more
		target, err := os.Readlink(filepath.Join(root, next))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EINVAL): // EINVAL: no link
			done = next
		case err != nil:
			return "", err
		default:
			if links++; links > maxLinks {
				return "", fmt.Errorf("%s: %w", path, syscall.ELOOP)
			}
			if filepath.IsAbs(target) {
				done = "/"
			}
			rest = target + "/" + more
		}
	}
}

// stage writes the new content beside the file, with the mode, owner and
// extended attributes of the old one, and returns what is to be renamed.
func (c *Change) stage() (string, error) {
	dir := filepath.Dir(c.target)
	if c.makeDir {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return "", err
		}
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(c.target)+".netfreeze-*")
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := c.fill(f); err != nil {
		return "", errors.Join(fmt.Errorf("write %s: %w", f.Name(), err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func (c *Change) fill(f *os.File) error {
	if _, err := f.Write(c.After); err != nil {
		return err
	}
	mode := defaultMode
	if c.Before != nil {
		info, err := os.Lstat(c.target)
		if err != nil {
			return err
		}
		mode = info.Mode()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
				return err
			}
		}
		if err := copyAttributes(f, c.target); err != nil {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil { // last: chown clears bits of it
		return err
	}
	return f.Sync()
}

// copyAttributes gives f the extended attributes of a file, such as its SELinux
// label and access control list.
func copyAttributes(f *os.File, from string) error {
	names := make([]byte, 64<<10) // the kernel's limit of a list and of a value
	n, err := unix.Llistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes of %s: %w", from, err)
	}
	value := make([]byte, 64<<10)
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

// commit puts the staged file in the place of the old one, or removes that,
// unless somebody changed it in the meantime.
func (c *Change) commit(staged string) error {
	now, err := read(c.target)
	if err != nil {
		return err
	}
	if (now == nil) != (c.Before == nil) || !bytes.Equal(now, c.Before) {
		return fmt.Errorf("%s was changed by somebody else just now: try again", c.target)
	}
	dir := filepath.Dir(c.target)
	if c.After != nil {
		if err := os.Rename(staged, c.target); err != nil {
			return err
		}
		return syncDir(dir)
	}
	if err := os.Remove(c.target); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename or a removal last through a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
