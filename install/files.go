// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/safefile"
)

// maxSize is the size of the largest configuration file that is read, in bytes.
const maxSize = 1 << 20

// defaultMode is the mode of files that install makes, dirMode that of directories.
const (
	defaultMode fs.FileMode = 0o644
	dirMode     fs.FileMode = 0o755
)

// Change is a planned change of one file.
type Change struct {
	// Path is the file's path within the root.
	Path string
	// Before and After are its content; nil means that there is no such file.
	Before, After []byte

	target  string // the path to write, links resolved, root included
	makeDir bool   // whether to make its directory
	rmDir   bool   // whether to remove its directory if that is empty afterwards
}

// changed reports whether the change changes anything.
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

// open reads the file at path within root and returns a change that leaves it as it
// is, to be filled in.
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

// read returns the content of a regular file, or nil if there is none.
func read(path string) ([]byte, error) {
	data, err := safefile.Read(path, maxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// resolve follows the links of path within root, where an absolute link starts at
// root again, and returns the path to write as this process sees it. The path, or
// several elements at its end, need not exist.
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
			if links++; links > safefile.MaxLinks {
				return "", fmt.Errorf("%s: %w", path, syscall.ELOOP)
			}
			if filepath.IsAbs(target) {
				done = "/"
			}
			rest = target + "/" + more
		}
	}
}

// stage writes the new content beside the file, with the mode, owner and extended
// attributes of the old one.
func (c *Change) stage() (*safefile.Staged, error) {
	if c.makeDir {
		if err := os.MkdirAll(filepath.Dir(c.target), dirMode); err != nil {
			return nil, err
		}
	}
	return safefile.Stage(c.target, c.After, defaultMode)
}

// commit puts the staged content in the place of the old one, or removes the file
// if staged is nil, unless somebody has changed the file in the meantime.
func (c *Change) commit(staged *safefile.Staged) error {
	now, err := read(c.target)
	if err != nil {
		return err
	}
	if (now == nil) != (c.Before == nil) || !bytes.Equal(now, c.Before) {
		return code.New(code.InstallRace, fmt.Sprintf("%s was changed by somebody else just now: try again", c.target))
	}
	if staged != nil {
		return staged.Commit()
	}
	if err := os.Remove(c.target); err != nil {
		return err
	}
	return safefile.SyncDir(filepath.Dir(c.target))
}
