// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// TestMain gives the tests namespaces and a /run of their own.
func TestMain(m *testing.M) { nstest.Main(m) }

const samples = "../../testdata/images/"

// file is an entry of an archive to be made.
type file struct {
	name string
	data []byte
	kind byte // as in a header, a regular file by default
	link string
}

// pack makes a tar archive.
func pack(files ...file) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.data)), Typeflag: f.kind, Linkname: f.link}
		if f.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		if _, err := w.Write(f.data); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func zipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	write(w, data)
	return b.Bytes()
}

func zstandard(data []byte) []byte {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		panic(err)
	}
	write(w, data)
	return b.Bytes()
}

func write(w io.WriteCloser, data []byte) {
	if _, err := w.Write(data); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
}

func plain(data []byte) []byte { return data }

// images returns the files of a sample, below a directory.
func images(tb testing.TB, sample, dir string) []file {
	tb.Helper()
	entries, err := os.ReadDir(samples + sample)
	nstest.Must(tb, err)
	files := make([]file, len(entries))
	for i, e := range entries {
		data, err := os.ReadFile(filepath.Join(samples, sample, e.Name()))
		nstest.Must(tb, err)
		files[i] = file{name: dir + e.Name(), data: data}
	}
	return files
}

const (
	configDump = `{"id":"3f2a91","name":"k8s_web_web-0_shop_1","rootfsImageName":"docker.io/library/web:1","runtime":"runc","checkpointedTime":"2026-01-02T03:04:05Z"}`
	specDump   = `{"annotations":{"io.container.manager":"cri-o","io.kubernetes.container.name":"web","io.kubernetes.pod.name":"web-0","io.kubernetes.pod.namespace":"shop"}}`
	netStatus  = `{"podman":{"interfaces":{"eth0":{"mac_address":"02:00:00:00:00:02","subnets":[{"ipnet":"10.9.0.1/24","gateway":"10.9.0.254"}]}}}}`
	dumpLog    = "(00.000000) Version: 4.2.1 (gitid 0)\n(00.000001) Running on node\n"
)

// exported is the archive of a container as podman, CRI-O and containerd make it. Its
// memory pages would be no image.
func exported(tb testing.TB, prefix string) []file {
	tb.Helper()
	return append(images(tb, "external", prefix+"checkpoint/"),
		file{name: prefix + "checkpoint/pages-1.img", data: bytes.Repeat([]byte("page"), 64<<10)},
		file{name: prefix + "config.dump", data: []byte(configDump)},
		file{name: prefix + "dump.log", data: []byte(dumpLog)},
		file{name: prefix + "network.status", data: []byte(netStatus)},
		file{name: prefix + "rootfs-diff.tar", data: pack(file{name: "checkpoint/inventory.img", data: []byte("no image")})},
		file{name: prefix + "spec.dump", data: []byte(specDump)},
	)
}

// layout is an OCI layout whose only layer is data.
func layout(layer []byte) []file {
	blob := func(data []byte) file {
		sum := sha256.Sum256(data)
		return file{name: "blobs/sha256/" + hex.EncodeToString(sum[:]), data: data}
	}
	manifest := `{"schemaVersion":2,"layers":[],"annotations":{"org.criu.checkpoint.container.name":"web","org.criu.checkpoint.engine.name":"CRI-O","other":"x"}}`
	return []file{
		blob(layer), blob([]byte(manifest)),
		{name: "index.json", data: []byte(`{"schemaVersion":2,"manifests":[{"annotations":{"io.kubernetes.cri-o.annotations.checkpoint.name":"web"}}]}`)},
		{name: "oci-layout", data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
	}
}

// save writes an archive to a file.
func save(tb testing.TB, data []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "checkpoint")
	nstest.Must(tb, os.WriteFile(path, data, 0o600))
	return path
}

// unpack makes a directory of the files.
func unpack(tb testing.TB, files []file) string {
	tb.Helper()
	dir := tb.TempDir()
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		nstest.Must(tb, os.MkdirAll(filepath.Dir(path), 0o700))
		nstest.Must(tb, os.WriteFile(path, f.data, 0o600))
	}
	return dir
}
