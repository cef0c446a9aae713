// SPDX-License-Identifier: Apache-2.0

package criuimg

import (
	"bytes"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// memory is an image directory in memory.
type memory map[string][]byte

// Open implements fs.FS.
func (m memory) Open(name string) (fs.File, error) {
	data, ok := m[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return memoryFile{bytes.NewReader(data)}, nil
}

// memoryFile is an open file of a memory, and its own description.
type memoryFile struct{ *bytes.Reader }

func (f memoryFile) Stat() (fs.FileInfo, error) { return f, nil }
func (memoryFile) Close() error                 { return nil }
func (memoryFile) Name() string                 { return "" }
func (memoryFile) Mode() fs.FileMode            { return 0 }
func (memoryFile) ModTime() time.Time           { return time.Time{} }
func (memoryFile) IsDir() bool                  { return false }
func (memoryFile) Sys() any                     { return nil }

// sample returns a sample directory.
func sample(dir string) memory {
	m := memory{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		if m[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			panic(err)
		}
	}
	return m
}

// check checks what holds for a checkpoint from whatever images.
func check(t *testing.T, cp *Checkpoint) {
	t.Helper()
	if len(cp.Conns) != len(cp.socks) || len(cp.Conns) > maxConns {
		t.Errorf("%d connections of %d sockets", len(cp.Conns), len(cp.socks))
	}
	for _, c := range cp.Conns {
		for _, end := range []netip.AddrPort{c.Local, c.Remote} {
			if !end.IsValid() || end.Port() == 0 || end.Addr().Is4In6() {
				t.Errorf("an invalid connection: %v", c)
			}
		}
	}
	if (cp.NetNS == External) != (cp.ExtKey != "") || cp.NetNS < Shared || cp.NetNS > Dumped {
		t.Errorf("namespace %v with key %q", cp.NetNS, cp.ExtKey)
	}
}

// FuzzFiles reads files.img, which has the addresses and ports.
func FuzzFiles(f *testing.F) {
	images := sample(samples + "external")
	f.Add(images["files.img"])
	f.Add(images["files.img"][4:])
	f.Add(frame(header("FILES"), entryOf(1), entryOf(2)))
	f.Fuzz(func(t *testing.T, data []byte) {
		cp := &Checkpoint{images: memory{"files.img": data}}
		if cp.readSockets() == nil {
			check(t, cp)
		}
	})
}

// FuzzSockets reads inetsk.img, which has them in images of CRIU before 3.3.
func FuzzSockets(f *testing.F) {
	f.Add(frame(header("INETSK"), entryOf(1).GetIsk(), entryOf(2).GetIsk()))
	f.Fuzz(func(t *testing.T, data []byte) {
		cp := &Checkpoint{images: memory{"inetsk.img": data}}
		if cp.readSockets() == nil {
			check(t, cp)
		}
	})
}

// FuzzNetNS reads the images that tell where the network namespace comes from:
// inventory.img, pstree.img, and ids-PID.img and netns-ID.img, which are found by what
// the others say.
func FuzzNetNS(f *testing.F) {
	for _, kind := range []string{"external", "dumped", "shared"} {
		images := sample(samples + kind)
		var ids []byte
		for name, data := range images {
			if ok, _ := filepath.Match("ids-*.img", name); ok {
				ids = data
			}
		}
		f.Add(images["inventory.img"], images["pstree.img"], ids, images["netns-9.img"])
	}
	f.Fuzz(func(t *testing.T, inventory, pstree, ids, netns []byte) {
		cp := &Checkpoint{images: rest{memory{"inventory.img": inventory, "pstree.img": pstree}, ids, netns}}
		if cp.readNetNS() == nil {
			check(t, cp)
		}
	})
}

// rest has one content for all names that begin with ids- and netns- each.
type rest struct {
	memory
	ids, netns []byte
}

// Open implements fs.FS.
func (r rest) Open(name string) (fs.File, error) {
	if ok, _ := filepath.Match("ids-*.img", name); ok {
		return memory{name: r.ids}.Open(name)
	}
	if ok, _ := filepath.Match("netns-*.img", name); ok {
		return memory{name: r.netns}.Open(name)
	}
	return r.memory.Open(name)
}

// FuzzStream reads the image of one connection, in each state.
func FuzzStream(f *testing.F) {
	images := sample(samples + "external")
	for _, name := range []string{"tcp-stream-4405b.img", "tcp-stream-44059.img"} {
		f.Add(images[name], uint8(tcp.Established))
	}
	f.Add(append(images["tcp-stream-4405b.img"], make([]byte, 100)...), uint8(tcp.FinWait1))
	f.Fuzz(func(t *testing.T, data []byte, state uint8) {
		cp := &Checkpoint{images: memory{"tcp-stream-1.img": data}}
		s, err := cp.stream(tcp.Tuple{}, socket{1, state}, maxUnacked)
		if err != nil {
			return
		}
		if len(s.Unacked) > min(maxUnacked, len(data)) || len(s.Unacked) > int(s.SndNxt-s.SndUna) {
			t.Errorf("%d unacknowledged bytes of an image of %d, %d were sent", len(s.Unacked), len(data), s.SndNxt-s.SndUna)
		}
		if s.MSS < 0 || s.MSS > maxMSS {
			t.Errorf("segments of %d bytes", s.MSS)
		}
	})
}
