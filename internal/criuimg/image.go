// SPDX-License-Identifier: Apache-2.0

package criuimg

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/checkpoint-restore/go-criu/v7/magic"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// Images may come from another host, from a registry or from a user's archive, and
// are read by a process of root that no control group of the container bounds. So
// every size in them is checked against the file and against these limits before
// anything is allocated.
const (
	maxImage = 256 << 20 // bytes of an image that is read from end to end
	maxFile  = 16 << 20  // bytes of an entry of files.img; an epoll descriptor's lists all that it watches
	maxEntry = 1 << 20   // bytes of any other entry; real ones have hundreds
	maxConns = 1 << 18   // connections; each has an image of its own, too
)

// magics are the numbers at the beginning of image files, by the names that CRIU
// gives to the kinds of images (criu/include/magic.h).
var magics = sync.OnceValue(func() map[string]uint64 { return magic.LoadMagic().ByName })

// directory is an image directory as a file system. It opens regular files only, and
// never waits for one: a FIFO or a device among the images would hang the restore.
type directory string

// Open implements fs.FS.
func (d directory) Open(name string) (fs.File, error) {
	path := filepath.Join(string(d), name)
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() { // before it is opened, which has effects on some devices
		return nil, code.New(code.Images, fmt.Sprintf("%s is not a regular file", path))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// image is an open image file: a magic number, then entries, each of which is
// preceded by its size (criu/image.c, criu/protobuf.c).
type image struct {
	name string
	file fs.File
	at   io.ReaderAt // the same file
	size int64       // of the file when it was opened
	read int64       // how far entries were read
	buf  *bufio.Reader
	data []byte // of the latest entry
}

// open opens an image file of a kind, such as "FILES". The error wraps
// fs.ErrNotExist if there is none.
func open(images fs.FS, name, kind string) (*image, error) {
	file, err := images.Open(name)
	if err != nil {
		return nil, err
	}
	img, err := newImage(file, name, kind)
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("decode %s: %w", name, err)
	}
	return img, nil
}

func newImage(file fs.File, name, kind string) (*image, error) {
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	at, ok := file.(io.ReaderAt)
	if !ok || !st.Mode().IsRegular() {
		return nil, code.New(code.Images, "it is not a regular file")
	}
	img := &image{name: name, file: file, at: at, size: st.Size()}
	img.buf = bufio.NewReader(io.NewSectionReader(at, 0, img.size))
	number, err := img.word()
	// Version 1.1 of the images has both; stats-dump is a service image (img_write_magic in criu/image.c).
	if common := uint64(number) == magics()["IMG_COMMON"] || uint64(number) == magics()["IMG_SERVICE"]; err == nil && common {
		number, err = img.word()
	}
	if err != nil {
		return nil, damaged("it ends within its header")
	}
	if uint64(number) != magics()[kind] {
		return nil, damaged("it begins with %#x, which is not the number of %s images", number, kind)
	}
	return img, nil
}

// Close closes the file.
func (img *image) Close() { _ = img.file.Close() } // opened for reading

// damaged returns an error about the content of an image.
func damaged(format string, args ...any) error {
	return code.New(code.Images, fmt.Sprintf("the image is damaged: "+format, args...))
}

// word reads a number of 4 bytes.
func (img *image) word() (uint32, error) {
	var b [4]byte
	n, err := io.ReadFull(img.buf, b[:])
	img.read += int64(n)
	return binary.LittleEndian.Uint32(b[:]), err
}

// next returns the next entry, which is valid until the next call. The error is
// io.EOF after the last one.
func (img *image) next(limit int64) ([]byte, error) {
	n, err := img.word()
	size := int64(n)
	switch {
	case errors.Is(err, io.EOF): // not within the number
		return nil, io.EOF
	case err != nil:
		return nil, damaged("it ends within the size of an entry")
	case size > img.size-img.read:
		return nil, damaged("it has an entry of %d bytes, and %d are left in the file", size, img.size-img.read)
	case size > limit:
		return nil, code.New(code.TooLarge, fmt.Sprintf("an entry of %d bytes is too large: %d are read at most", size, limit))
	}
	if int64(cap(img.data)) < size {
		img.data = make([]byte, size)
	}
	img.data = img.data[:size]
	got, err := io.ReadFull(img.buf, img.data)
	img.read += int64(got)
	if err != nil {
		return nil, fmt.Errorf("read an entry of %d bytes: %w", size, err)
	}
	return img.data, nil
}

// first reads the first entry of an image file into entry. A file without one is an
// error.
func first(images fs.FS, name, kind string, entry proto.Message) error {
	img, err := open(images, name, kind)
	if err != nil {
		return err
	}
	defer img.Close()
	return img.first(entry)
}

func (img *image) first(entry proto.Message) error {
	data, err := img.next(maxEntry)
	if errors.Is(err, io.EOF) {
		err = damaged("it has no entry")
	}
	if err == nil {
		err = decode(data, entry)
	}
	if err != nil {
		return fmt.Errorf("decode %s: %w", img.name, err)
	}
	return nil
}

// decode decodes an entry. It keeps nothing of fields that are not known.
func decode(data []byte, entry proto.Message) error {
	return proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, entry)
}

// each calls f with every entry of an image file, which is valid during the call. An
// entry has at most limit bytes. It ends at the first error of f.
func each(images fs.FS, name, kind string, limit int64, f func(entry []byte) error) error {
	img, err := open(images, name, kind)
	if err != nil {
		return err
	}
	defer img.Close()
	if img.size > maxImage {
		return code.New(code.TooLarge, fmt.Sprintf("decode %s: it has %d bytes, and %d are read at most", name, img.size, maxImage))
	}
	for {
		entry, err := img.next(limit)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = f(entry)
		}
		if err != nil {
			return fmt.Errorf("decode %s: %w", name, err)
		}
	}
}
