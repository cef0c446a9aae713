// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// store is what is kept of an archive, or of an image's blobs. Nothing of it is ever
// written to a file, so that no name in an archive can do harm.
type store struct {
	budget  *budget
	dirs    map[string]memory // by where they are: blob, colon, directory
	notes   map[string]string // annotations about checkpoints, of OCI manifests and configurations
	oci     bool              // there are blobs
	skipped int               // entries that are links, or whose names lead out of the archive
}

// newStore returns an empty store for something of this size.
func newStore(size int64) *store {
	return &store{budget: newBudget(size), dirs: map[string]memory{}, notes: map[string]string{}}
}

// How streams begin.
var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd} // RFC 8878, section 3.1.1
)

// tarMagic stands at tarAt of every tar archive but the oldest kind (POSIX, ustar).
var tarMagic = []byte("ustar")

const (
	tarAt     = 257
	blockSize = 512
)

// nested matches the names of files of an image that may be archives themselves, or its
// configuration: blobs of an OCI layout, and what a docker-archive has.
var nested = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(blobs/[a-z0-9]+/[0-9a-f]{32,}|(sha256:)?[0-9a-f]{32,}(/layer)?(\.tar|\.tar\.gz|\.json)?)$`)
})

// archive reads a tar archive, compressed or not. blob names it within an image, and is
// empty for the outermost one.
func (s *store) archive(r io.Reader, blob string, depth int) error {
	buf := bufio.NewReaderSize(r, blockSize)
	head, err := buf.Peek(blockSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var plain io.Reader = buf
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		z, err := gzip.NewReader(buf)
		if err != nil {
			return damaged(err)
		}
		plain = inflated{z, s.budget}
	case bytes.HasPrefix(head, zstdMagic):
		z, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return damaged(err)
		}
		defer z.Close()
		plain = inflated{z, s.budget}
	default:
		if seeker, ok := r.(io.ReadSeeker); ok { // memory pages are passed over, not read
			if _, err := seeker.Seek(0, io.SeekStart); err != nil {
				return err
			}
			plain = seeker
		}
	}
	return s.tar(tar.NewReader(plain), blob, depth)
}

func (s *store) tar(r *tar.Reader, blob string, depth int) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return damaged(err)
		}
		if err := s.budget.entry(); err != nil {
			return err
		}
		name, ok := inside(h.Name)
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if !ok || h.Typeflag != tar.TypeReg {
			s.skipped++
			continue
		}
		if blob == "" && nested().MatchString(name) {
			err = s.blob(r, name, h.Size, depth+1)
		} else {
			err = s.file(r, blob, name, h.Size, h.ModTime)
		}
		if err != nil {
			return err
		}
	}
}

// inside returns the clean form of a name in an archive, and whether it leads nowhere
// else.
func inside(name string) (string, bool) {
	if len(name) > maxName || strings.ContainsRune(name, 0) || path.IsAbs(name) {
		return "", false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", false
		}
	}
	return path.Clean(name), true
}

// blob reads a file of an image: JSON, or a layer. Anything else is passed over, and so
// is a layer in a layer.
func (s *store) blob(r io.Reader, name string, size int64, depth int) error {
	s.oci = true
	buf := bufio.NewReaderSize(r, blockSize)
	head, err := buf.Peek(blockSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return damaged(err)
	}
	switch {
	case bytes.HasPrefix(bytes.TrimSpace(head), []byte("{")):
		if size > maxJSON {
			return nil
		}
		data, err := io.ReadAll(io.LimitReader(buf, maxJSON))
		if err != nil {
			return damaged(err)
		}
		s.annotate(data)
		return nil
	case depth >= maxDepth:
		return nil
	case bytes.HasPrefix(head, gzipMagic), bytes.HasPrefix(head, zstdMagic),
		len(head) == blockSize && bytes.HasPrefix(head[tarAt:], tarMagic):
		if err := s.archive(buf, name, depth); err != nil {
			return fmt.Errorf("read %s in the image: %w", name, err)
		}
	}
	return nil
}

// file keeps what is needed of a file of an archive.
func (s *store) file(r io.Reader, blob, name string, size int64, mtime time.Time) error {
	limit, whole := wanted(path.Base(name))
	switch {
	case limit == 0:
		return nil
	case whole && size > limit:
		return tooLarge("%s has %d bytes", name, size)
	}
	if err := s.budget.keep(name, min(size, limit)); err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(r, min(size, limit)))
	if err != nil {
		return damaged(fmt.Errorf("%s: %w", name, err))
	}
	if blob == "" && (name == "index.json" || name == "manifest.json") {
		s.annotate(data)
	}
	dir := blob + ":" + path.Dir(name)
	if s.dirs[dir] == nil {
		s.dirs[dir] = memory{}
	}
	s.dirs[dir][path.Base(name)] = &kept{data: data, size: size, time: mtime}
	return nil
}

// wanted returns how many bytes are kept of a file, by its name, and whether it is of
// no use without the rest.
func wanted(base string) (limit int64, whole bool) {
	switch base {
	case "files.img", "inetsk.img", "pstree.img":
		return maxImage, true
	case "config.dump", "spec.dump", "network.status", "index.json", "manifest.json":
		return maxJSON, true
	case "dump.log", "stats-dump", "inventory.img":
		return maxPrefix, false
	}
	for _, prefix := range []string{"tcp-stream-", "core-", "ids-", "netns-"} {
		if strings.HasPrefix(base, prefix) && strings.HasSuffix(base, ".img") {
			return maxPrefix, false
		}
	}
	return 0, false
}

// damaged gives an error about the content of an archive a code, and says what it means.
func damaged(err error) error {
	if _, ok := code.Of(err); ok {
		return err
	}
	why := err.Error()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		why = "it ends in the middle: copy it again"
	}
	return code.New(code.Images, "the archive is damaged, or none: "+why)
}
