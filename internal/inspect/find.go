// SPDX-License-Identifier: Apache-2.0

// Package inspect says what is in a checkpoint, wherever it is: in a directory of CRIU's
// images, in an archive that podman, CRI-O, containerd or docker made, or in an image
// for a registry. It says who was dumped, which connections there are, and what a restore
// needs; and it tells whether a network namespace has that.
//
// It writes nothing, and trusts nothing that it reads.
package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// Kinds of what a path is.
const (
	KindDirectory = "directory"
	KindArchive   = "archive"
	KindImage     = "OCI image"
)

// source is one checkpoint, with the files beside it.
type source struct {
	where  string            // within the path; empty if it is the path itself
	images fs.FS             // CRIU's
	beside []fs.FS           // where the runtime's files may be: the same directory, and the one above
	notes  map[string]string // annotations of the image
}

// file returns the first beginning of a file, among those beside the images, that is
// there, up to limit bytes, and its description.
func (s source) file(name string, limit int64) ([]byte, fs.FileInfo, error) {
	for _, dir := range s.beside {
		f, err := dir.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		defer f.Close() // opened for reading
		st, err := f.Stat()
		if err != nil {
			return nil, nil, err
		}
		data, err := readAtMost(f, limit)
		return data, st, err
	}
	return nil, nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// find returns the checkpoints at a path, and what kind of thing that is. The caller
// calls close when it is done with them.
func find(at string) (found []source, kind string, done func(), err error) {
	done = func() {}
	st, err := os.Stat(at)
	switch {
	case err != nil:
		return nil, "", done, code.New(code.Usage, fmt.Sprintf("%v: name a directory of CRIU's images, or a checkpoint archive", err))
	case st.IsDir():
		root, err := os.OpenRoot(at)
		if err != nil {
			return nil, "", done, err
		}
		found, kind, err = inDirectory(root)
		return found, kind, func() { _ = root.Close() }, err
	case !st.Mode().IsRegular():
		return nil, "", done, code.New(code.Untrusted, fmt.Sprintf("%s is neither a directory nor a regular file", at))
	}
	f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK, 0) // it never waits for a FIFO that has come in the file's place
	if err != nil {
		return nil, "", done, err
	}
	defer f.Close() // opened for reading
	s := newStore(st.Size())
	if err := s.archive(f, "", 0); err != nil {
		return nil, "", done, err
	}
	kind = KindArchive
	if s.oci {
		kind = KindImage
	}
	found, err = s.checkpoints()
	return found, kind, done, err
}

// inventory is an image that every dump writes (criu/image.c).
const inventory = "inventory.img"

// checkpoints returns those of an archive.
func (s *store) checkpoints() ([]source, error) {
	var dirs []string
	for dir, files := range s.dirs {
		if files[inventory] != nil {
			dirs = append(dirs, dir)
		}
	}
	dirs = complete(dirs, func(dir string) bool { return s.dirs[dir]["pstree.img"] != nil })
	switch {
	case len(dirs) == 0:
		return nil, s.nothing()
	case len(dirs) > maxFound:
		return nil, tooLarge("there are %d checkpoints in it", len(dirs))
	}
	found := make([]source, len(dirs))
	for i, dir := range dirs {
		blob, name, _ := strings.Cut(dir, ":")
		found[i] = source{where: path.Join(blob, name), images: s.dirs[dir], beside: []fs.FS{s.dirs[dir]}}
		if up := s.dirs[blob+":"+path.Dir(name)]; up != nil && name != "." {
			found[i].beside = append(found[i].beside, up)
		}
		if len(dirs) == 1 { // otherwise it is not known of which they speak
			found[i].notes = s.notes
		}
	}
	return found, nil
}

// nothing returns the error that there is no checkpoint.
func (s *store) nothing() error {
	text := "there is no checkpoint in it: no directory has an " + inventory
	if s.skipped > 0 {
		text += fmt.Sprintf(" (%d links, special files and names that lead out of the archive were passed over)", s.skipped)
	}
	return code.New(code.Images, text)
}

// complete sorts the directories that have images, and leaves out those of "criu
// pre-dump", which have no process tree, if there are others.
func complete(dirs []string, hasTree func(string) bool) []string {
	slices.Sort(dirs)
	whole := slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool { return !hasTree(dir) })
	if len(whole) > 0 {
		return whole
	}
	return dirs
}

// rooted is a directory below a root that its links cannot lead out of. It opens regular
// files only, and never waits for one.
type rooted struct {
	root *os.Root
	dir  string
}

// Open implements fs.FS.
func (r rooted) Open(name string) (fs.File, error) {
	at := filepath.Join(r.dir, name)
	st, err := r.root.Stat(at)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() { // before it is opened, which has effects on some devices
		return nil, code.New(code.Untrusted, fmt.Sprintf("%s is not a regular file", at))
	}
	return r.root.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

func (r rooted) has(name string) bool {
	st, err := r.root.Stat(filepath.Join(r.dir, name))
	return err == nil && st.Mode().IsRegular()
}

// inDirectory returns the checkpoints of a directory: its own images; or those one or two
// levels below it, as in what podman and docker keep and in unpacked archives; or those
// in the layers of an OCI layout.
func inDirectory(root *os.Root) ([]source, string, error) {
	if (rooted{root, "."}).has(inventory) {
		own := rooted{root, "."}
		return []source{{images: own, beside: []fs.FS{own}}}, KindDirectory, nil
	}
	s := newStore(0)
	var dirs []string
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := s.budget.entry(); err != nil {
			return err
		}
		const deepest = 3 // CONTAINER/checkpoint/inventory.img
		deep := strings.Count(name, "/") + 1
		switch {
		case d.IsDir() && (deep > deepest-1 || d.Name() == "rootfs"):
			return fs.SkipDir
		case d.Name() == inventory && d.Type().IsRegular():
			dirs = append(dirs, path.Dir(name))
		case d.Type().IsRegular() && (nested().MatchString(name) || name == "index.json" || name == "manifest.json"):
			return s.add(rooted{root, "."}, name)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	if len(dirs) == 0 {
		found, err := s.checkpoints()
		return found, KindImage, err
	}
	dirs = complete(dirs, func(dir string) bool { return (rooted{root, dir}).has("pstree.img") })
	if len(dirs) > maxFound {
		return nil, "", tooLarge("there are %d checkpoints in it", len(dirs))
	}
	found := make([]source, len(dirs))
	for i, dir := range dirs {
		at := rooted{root, dir}
		found[i] = source{where: dir, images: at, beside: []fs.FS{at, rooted{root, path.Dir(dir)}}}
	}
	return found, KindDirectory, nil
}

// add reads a file of an image that is a directory.
func (s *store) add(dir rooted, name string) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() // opened for reading
	st, err := f.Stat()
	if err != nil {
		return err
	}
	s.budget.grow(st.Size())
	if nested().MatchString(name) {
		return s.blob(f, name, st.Size(), 1)
	}
	return s.file(f, "", name, st.Size(), st.ModTime())
}
