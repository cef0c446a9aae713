// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// few is more than any of the hostile archives below may cost, in bytes, and far less
// than they claim to have.
const few = 64 << 20

// cost reads a path, and checks that it costs little.
func cost(t *testing.T, name, path string) (*Report, error) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begun := time.Now()
	r, err := Read(path)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > few {
		t.Errorf("%s: %d bytes were allocated", name, n)
	}
	if d := time.Since(begun); d > time.Minute {
		t.Errorf("%s: it took %s", name, d)
	}
	return r, err
}

// zeros are many bytes of zero.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// bomb is an archive with a file of many bytes that is kept, or not.
func bomb(t *testing.T, compress func(io.Writer) io.WriteCloser, name string, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z := compress(&b)
	w := tar.NewWriter(z)
	nstest.Must(t, w.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o600}))
	_, err := io.Copy(w, io.LimitReader(zeros{}, size))
	nstest.Must(t, err)
	nstest.Must(t, errors.Join(w.Close(), z.Close()))
	return b.Bytes()
}

func byGzip(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }

func byZstd(w io.Writer) io.WriteCloser {
	z, err := zstd.NewWriter(w)
	if err != nil {
		panic(err)
	}
	return z
}

// TestBombs stops what is compressed too well, also one within another. What may come in
// any case is less here, so that the test does not take long.
func TestBombs(t *testing.T) {
	const size, free = 64 << 20, 16 << 20
	gz, zs := bomb(t, byGzip, "checkpoint/pages-1.img", size), bomb(t, byZstd, "checkpoint/pages-1.img", size)
	for name, data := range map[string][]byte{
		"gzip": gz, "zstd": zs, "zstd in zstd": zstandard(pack(layout(zs)...)), "in a layout": pack(layout(zs)...),
	} {
		s := newStore(int64(len(data)))
		s.budget.total -= freeOfRatio - free
		err := s.archive(bytes.NewReader(data), "", 0)
		if c, _ := code.Of(err); c != code.TooLarge || !strings.Contains(err.Error(), "times its size") {
			t.Errorf("%s of %d bytes: %v", name, len(data), err)
		}
		if s.budget.total < -1<<20 {
			t.Errorf("%s: it read %d bytes more", name, -s.budget.total)
		}
	}
	if _, err := cost(t, "small", save(t, gz)); err == nil || !strings.Contains(err.Error(), "no directory has") {
		t.Errorf("one that compresses well, and is small, is no bomb: %v", err)
	}
}

// TestLargeFiles refuses files and numbers of files that no checkpoint has.
func TestLargeFiles(t *testing.T) {
	_, err := cost(t, "files.img", save(t, bomb(t, byZstd, "checkpoint/files.img", maxImage+1)))
	if c, _ := code.Of(err); c != code.TooLarge {
		t.Errorf("a large files.img: %v", err)
	}
	s := newStore(0)
	for range maxEntries {
		nstest.Must(t, s.budget.entry())
	}
	if s.budget.entry() == nil {
		t.Error("the number of entries has no limit")
	}
	err = nil
	long := strings.Repeat("a/", 2000)
	for i := 0; err == nil; i++ {
		if i > maxKept/len(long) {
			t.Fatal("what is kept has no limit")
		}
		err = s.budget.keep(long, 0)
	}
}

// TestSparse: a file that claims to be large, and has no content, costs nothing.
func TestSparse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	header := &tar.Header{Name: "checkpoint/pages-1.img", Size: 1 << 40, Mode: 0o600, Format: tar.FormatGNU}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	nstest.Must(t, w.WriteHeader(header))
	nstest.Must(t, os.WriteFile(path, b.Bytes(), 0o600))
	if _, err := cost(t, "a claim", path); err == nil || !strings.Contains(err.Error(), "ends in the middle") {
		t.Errorf("a claim: %v", err)
	}
	nstest.Must(t, os.Truncate(path, 512+1<<40+1024)) // a hole: passed over without being read
	if _, err := cost(t, "a hole", path); err == nil || !strings.Contains(err.Error(), "no directory has") {
		t.Errorf("a hole: %v", err)
	}
}

// TestNames passes over names and links that lead elsewhere, and says so.
func TestNames(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "inventory.img")
	nstest.Must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	_, err := cost(t, "names", save(t, pack(
		file{name: "/checkpoint/inventory.img", data: []byte("x")},
		file{name: "../checkpoint/inventory.img", data: []byte("x")},
		file{name: "a/../../checkpoint/inventory.img", data: []byte("x")},
		file{name: "checkpoint/inventory.img", kind: tar.TypeSymlink, link: secret},
		file{name: "b/inventory.img", kind: tar.TypeLink, link: secret},
		file{name: "c/inventory.img", kind: tar.TypeFifo},
		file{name: "d/inventory.img", kind: tar.TypeChar},
		file{name: "e/inventory.img/", kind: tar.TypeDir},
		file{name: strings.Repeat("a/", maxName) + "inventory.img", data: []byte("x")},
	)))
	if err == nil || !strings.Contains(err.Error(), "8 links, special files and names that lead out of the archive were passed over") {
		t.Errorf("got %v", err)
	}
	dir := t.TempDir()
	nstest.Must(t, os.Symlink(secret, filepath.Join(dir, "inventory.img")))
	nstest.Must(t, os.Symlink(filepath.Dir(secret), filepath.Join(dir, "checkpoint")))
	if r, err := Read(dir); err == nil || !strings.Contains(err.Error(), "no directory has an inventory.img") {
		t.Errorf("links in a directory: %+v, %v", r, err)
	}
}

// TestNesting goes into layers of an image, and no deeper.
func TestNesting(t *testing.T) {
	for depth := range 4 {
		data := pack(exported(t, "")...)
		for range depth {
			data = zipped(pack(layout(data)...))
		}
		r, err := cost(t, fmt.Sprint(depth), save(t, data))
		if found := err == nil && len(r.Checkpoints) == 1; found != (depth < 2) {
			t.Errorf("an image in %d images: %+v, %v", depth, r, err)
		}
	}
	data := pack(exported(t, "")...)
	for range 200 {
		data = zstandard(pack(file{name: digest + ".tar", data: data}))
	}
	if r, err := cost(t, "200", save(t, data)); err == nil {
		t.Errorf("200 archives in each other: %+v", r)
	}
}

// TestHeader: a header of the extended kind that is larger than any real one is refused.
func TestHeader(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	records := map[string]string{"COMMENT.long": strings.Repeat("x", 8<<20)}
	err := w.WriteHeader(&tar.Header{Name: "a", Mode: 0o600, Format: tar.FormatPAX, PAXRecords: records})
	if err == nil {
		_, err = cost(t, "header", save(t, b.Bytes()))
	}
	if err == nil {
		t.Error("a huge header is not refused")
	}
}

// TestStrangers: what the files of the engine say is nobody's truth, and does not keep
// the images from being read.
func TestStrangers(t *testing.T) {
	files := exported(t, "")
	for i, f := range files {
		switch f.name {
		case "config.dump":
			files[i].data = []byte(`{"id": 7}`)
		case "spec.dump":
			files[i].data = []byte(`{"annotations": [`)
		case "network.status":
			files[i].data = []byte(`{`)
		}
	}
	files = append(files, file{name: "stats-dump", data: []byte("no image")})
	r, err := Read(save(t, pack(files...)))
	if err != nil || len(r.Checkpoints[0].Problems) != 4 || len(r.Checkpoints[0].Connections) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzArchive reads archives of every kind.
func FuzzArchive(f *testing.F) {
	whole := pack(exported(f, "")...)
	for _, compress := range []func([]byte) []byte{plain, zipped, zstandard} {
		f.Add(compress(whole))
		f.Add(compress(pack(layout(compress(whole))...)))
	}
	f.Add(pack(file{name: "../inventory.img", data: []byte("x")}, file{name: "inventory.img", kind: tar.TypeSymlink, link: "/etc/passwd"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newStore(int64(len(data)))
		s.budget.kept, s.budget.total = 16<<20, 64<<20 // so that one input does not take long
		if err := s.archive(bytes.NewReader(data), "", 0); err != nil {
			if _, ok := code.Of(err); !ok {
				t.Errorf("an error without a code: %v", err)
			}
			return
		}
		found, err := s.checkpoints()
		if err != nil {
			return
		}
		for _, src := range found {
			if strings.HasPrefix(src.where, "/") || strings.Contains("/"+src.where+"/", "/../") {
				t.Errorf("it is at %q", src.where)
			}
			if c, err := src.read(); err == nil && len(c.Connections) > maxEntries {
				t.Errorf("%d connections", len(c.Connections))
			}
		}
	})
}
