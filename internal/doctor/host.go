// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
)

// Host is the machine that is looked at.
type Host struct {
	// Root is the directory in which all paths are looked up; "" is /. In any other one
	// only files are looked at, since nothing runs there.
	Root string
	// Keeper knows what is frozen here. It is not used with another root.
	Keeper *freeze.Keeper

	failing *int // how many checks of the machine fail, once somebody has asked
}

// live reports whether the machine is the running one.
func (h *Host) live() bool { return h.Root == "" || h.Root == "/" }

// on returns where a path of the machine is for this process.
func (h *Host) on(path string) string { return filepath.Join("/", h.Root, path) }

// off returns the path of the machine for one of this process; see on.
func (h *Host) off(path string) string {
	return filepath.Join("/", strings.TrimPrefix(path, filepath.Clean(h.on("/"))))
}

// exists reports whether there is a file at a path of the machine.
func (h *Host) exists(path string) bool {
	_, err := os.Stat(h.on(path))
	return err == nil
}

// programDirs are where programs are on any machine.
var programDirs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// look returns the path of a program on the machine, "" if it is not installed.
func (h *Host) look(name string) string {
	dirs := programDirs
	if h.live() {
		dirs = append(filepath.SplitList(os.Getenv("PATH")), dirs...)
	}
	for _, dir := range dirs {
		if path := filepath.Join(dir, name); filepath.IsAbs(path) && executable(h.on(path)) {
			return path
		}
	}
	return ""
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// tables reads the TOML files that match the patterns, in this order, and those that
// match one pattern by their names. Their problem is the engine's own: one that cannot
// be read is left out.
func (h *Host) tables(patterns ...string) (tables []table) {
	for _, pattern := range patterns {
		paths, _ := filepath.Glob(h.on(pattern)) // the only error is a bad pattern
		for _, path := range paths {
			t := table{file: h.off(path), values: map[string]any{}}
			if _, err := toml.DecodeFile(path, &t.values); err == nil {
				tables = append(tables, t)
			}
		}
	}
	return tables
}

// table is a TOML file, or a table in it.
type table struct {
	file   string
	values map[string]any
}

// sub returns the table that the names lead to; it is empty if there is none.
func (t table) sub(names ...string) table {
	for _, name := range names {
		next, _ := t.values[name].(map[string]any)
		t.values = next
	}
	return t
}

// text returns the string of this name, "" if there is none.
func (t table) text(name string) string {
	s, _ := t.values[name].(string)
	return s
}

// texts returns the list of strings of this name.
func (t table) texts(name string) (all []string) {
	list, _ := t.values[name].([]any)
	for _, v := range list {
		if s, ok := v.(string); ok {
			all = append(all, s)
		}
	}
	return all
}

// notThere reports whether err says that there is no such file.
func notThere(err error) bool { return errors.Is(err, fs.ErrNotExist) }
