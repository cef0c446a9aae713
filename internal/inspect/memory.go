// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"io"
	"io/fs"
	"time"
)

// memory is a directory of an archive: what is kept of its files.
type memory map[string]*kept

// kept is a file, or its beginning.
type kept struct {
	data []byte
	size int64 // of the file
	time time.Time
}

// Open implements fs.FS.
func (m memory) Open(name string) (fs.File, error) {
	f, ok := m[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &openFile{kept: f, name: name}, nil
}

// openFile is an open file of a memory, and its own description. What was not kept
// cannot be read.
type openFile struct {
	*kept
	name string
	off  int64
}

// ReadAt implements io.ReaderAt.
func (f *openFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *openFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.off)
	f.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *openFile) Close() error               { return nil }
func (f *openFile) Name() string               { return f.name }
func (f *openFile) Size() int64                { return f.size }
func (f *openFile) Mode() fs.FileMode          { return 0 }
func (f *openFile) ModTime() time.Time         { return f.time }
func (f *openFile) IsDir() bool                { return false }
func (f *openFile) Sys() any                   { return nil }
