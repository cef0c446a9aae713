// SPDX-License-Identifier: Apache-2.0

package criuimg

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fown"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	sk_opts "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-opts"
	tcp_stream "github.com/checkpoint-restore/go-criu/v7/crit/images/tcp-stream"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

const samples = "../../testdata/images/"

// header returns how an image of a kind begins.
func header(kind string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(magics()["IMG_COMMON"]))
	return binary.LittleEndian.AppendUint32(b, uint32(magics()[kind]))
}

// frame appends entries as CRIU writes them.
func frame(b []byte, entries ...proto.Message) []byte {
	for _, e := range entries {
		data, err := proto.Marshal(e)
		if err != nil {
			panic(err)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
		b = append(b, data...)
	}
	return b
}

// allocated returns how many bytes f allocates in all.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// streamEntry returns the entry of a stream with queues of these lengths.
func streamEntry(in, out, unsent uint32) *tcp_stream.TcpStreamEntry {
	return &tcp_stream.TcpStreamEntry{
		InqLen: &in, InqSeq: proto.Uint32(7), OutqLen: &out, OutqSeq: proto.Uint32(2), UnsqLen: &unsent,
		OptMask: proto.Uint32(0), SndWscale: proto.Uint32(7), MssClamp: proto.Uint32(1460),
	}
}

// few is more than reading any of the hostile images below may allocate, and far less
// than they claim to have.
const few = 4 << 20

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// external copies a sample into a directory of its own.
func external(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(samples+"external")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLyingStream: an image of a few bytes that claims long queues costs no memory,
// is an error, and does not keep the other connections from being read.
func TestLyingStream(t *testing.T) {
	const claim = 64 << 20
	for _, tc := range []struct{ in, out uint32 }{{0, claim}, {claim, 0}, {claim, claim}, {1<<32 - 1, 1<<32 - 1}} {
		dir := external(t)
		e := streamEntry(tc.in, tc.out, 0)
		writeFile(t, filepath.Join(dir, "tcp-stream-4405b.img"), append(frame(header("TCP_STREAM"), e), "some bytes"...))
		var (
			streams []tcp.Stream
			err     error
		)
		n := allocated(func() {
			var cp *Checkpoint
			if cp, err = Read(dir); err == nil {
				streams, err = cp.Streams()
			}
		})
		if n > few {
			t.Errorf("%+v: allocated %d bytes", tc, n)
		}
		if err == nil || !strings.Contains(err.Error(), "damaged") || len(streams) != 1 {
			t.Errorf("%+v: got %d streams, %v", tc, len(streams), err)
		}
	}
}

// TestSparseStream: of long queues only the bytes that are kept are read, from where
// they are.
func TestSparseStream(t *testing.T) {
	const (
		in  = 1<<32 - 1
		out = 1 << 31
	)
	dir := external(t)
	e := streamEntry(in, out, out-1_000_000)
	path := filepath.Join(dir, "tcp-stream-4405b.img")
	head := frame(header("TCP_STREAM"), e)
	writeFile(t, path, head)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := bytes.Repeat([]byte("unacknowledged "), maxUnacked/15+1)[:maxUnacked]
	if _, err := f.WriteAt(want, int64(len(head))+in); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(int64(len(head)) + in + out); err != nil {
		t.Fatal(err)
	}
	cp, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var streams []tcp.Stream
	n := allocated(func() { streams, err = cp.Streams() })
	if n > few || err != nil || len(streams) != 2 {
		t.Fatalf("allocated %d bytes for %d streams: %v", n, len(streams), err)
	}
	for _, s := range streams {
		if s.RcvNxt == 7 && !bytes.Equal(s.Unacked, want) {
			t.Errorf("read %d other bytes", len(s.Unacked))
		}
	}
}

// TestQueue reads the sent part of a short send queue.
func TestQueue(t *testing.T) {
	for _, tc := range []struct {
		queues          string
		in, out, unsent uint32
		state           uint8
		want            string
		refused         bool
		scale, mss      uint32
	}{
		{queues: "receivedsent", in: 8, out: 4, want: "sent"},
		{queues: "receivedsentleft", in: 8, out: 8, unsent: 4, want: "sent"},
		{queues: "sent", out: 4, state: tcp.FinWait1, want: "sent"},
		{queues: "left", out: 4, unsent: 4},
		{queues: "received", in: 8},
		{queues: "cut shor", in: 4, out: 5, refused: true},
		{queues: "s", out: 1, scale: 14, mss: 65535, want: "s"},
		{queues: "s", out: 1, scale: 15, refused: true},
		{queues: "s", out: 1, mss: 65536, refused: true},
	} {
		e := streamEntry(tc.in, tc.out, tc.unsent)
		e.RcvWscale, e.MssClamp = &tc.scale, &tc.mss
		images := sample(samples + "external")
		images["tcp-stream-1.img"] = append(frame(header("TCP_STREAM"), e), tc.queues...)
		cp := &Checkpoint{images: images}
		s, err := cp.stream(tcp.Tuple{}, socket{1, max(tc.state, tcp.Established)}, maxUnacked)
		if (err != nil) != tc.refused || string(s.Unacked) != tc.want {
			t.Errorf("%+v: got %q, %v", tc, s.Unacked, err)
		}
	}
}

// TestSendQueuesTogether: many connections that name one image with a long send queue
// do not cost its size each.
func TestSendQueuesTogether(t *testing.T) {
	e := streamEntry(0, maxUnacked, 0)
	images := sample(samples + "external")
	images["tcp-stream-1.img"] = append(frame(header("TCP_STREAM"), e), make([]byte, maxUnacked)...)
	const most = maxUnackedAll / maxUnacked
	cp := &Checkpoint{images: images}
	for range most + 100 {
		cp.Conns, cp.socks = append(cp.Conns, tcp.Tuple{}), append(cp.socks, socket{1, tcp.Established})
	}
	streams, err := cp.Streams()
	if err != nil || len(streams) != most+100 {
		t.Fatalf("%d streams: %v", len(streams), err)
	}
	total := 0
	for _, s := range streams {
		total += len(s.Unacked)
	}
	if total != maxUnackedAll || streams[most].SndUna == streams[most].SndNxt {
		t.Errorf("%d bytes are kept", total)
	}
}

// entryOf returns an entry of files.img that is a connection.
func entryOf(port uint32) *fdinfo.FileEntry {
	return &fdinfo.FileEntry{
		Type: fdinfo.FdTypes_INETSK.Enum(), Id: proto.Uint32(1),
		Isk: &sk_inet.InetSkEntry{
			Id: proto.Uint32(1), Ino: proto.Uint32(port), Family: proto.Uint32(unix.AF_INET), Type: proto.Uint32(unix.SOCK_STREAM),
			Proto: proto.Uint32(unix.IPPROTO_TCP), State: proto.Uint32(tcp.Established), Flags: proto.Uint32(0), Backlog: proto.Uint32(0),
			SrcPort: proto.Uint32(443), DstPort: &port, SrcAddr: []uint32{1}, DstAddr: []uint32{2},
			Fown: &fown.FownEntry{Uid: proto.Uint32(0), Euid: proto.Uint32(0), Signum: proto.Uint32(0), PidType: proto.Uint32(0), Pid: proto.Uint32(0)},
			Opts: &sk_opts.SkOptsEntry{
				SoSndbuf: proto.Uint32(0), SoRcvbuf: proto.Uint32(0),
				SoSndTmoSec: proto.Uint64(0), SoSndTmoUsec: proto.Uint64(0), SoRcvTmoSec: proto.Uint64(0), SoRcvTmoUsec: proto.Uint64(0),
			},
		},
	}
}

// TestHugeImages: every image that is read whole, or to its end, is bounded, and the
// error says so.
func TestHugeImages(t *testing.T) {
	sized := func(kind string, size uint32) []byte {
		return binary.LittleEndian.AppendUint32(header(kind), size)
	}
	for _, tc := range []struct {
		name string
		data []byte
		size int64 // of the file, the rest of which is a hole
		want string
	}{
		{"inventory.img", sized("INVENTORY", 512<<20), 1 << 30, "entry of 536870912 bytes is too large"},
		{"pstree.img", sized("PSTREE", 1<<20+1), 1 << 30, "entry of 1048577 bytes is too large"},
		{"ids-50.img", sized("IDS", 1<<32-1), 1 << 40, "too large"},
		{"netns-9.img", sized("NETNS", 512<<20), 1 << 30, "too large"},
		{"files.img", sized("FILES", 32<<20), 64 << 20, "too large"},
		{"files.img", header("FILES"), 1 << 40, "268435456 are read at most"},
		{"inventory.img", sized("INVENTORY", 512<<20), 20, "damaged"},
		{"files.img", sized("FILES", 512<<20), 20, "damaged"},
		{"tcp-stream-4405b.img", sized("TCP_STREAM", 512<<20), 1 << 30, "too large"},
		{"tcp-stream-4405b.img", sized("TCP_STREAM", 512<<20), 20, "damaged"},
	} {
		dir := external(t)
		path := filepath.Join(dir, tc.name)
		writeFile(t, path, tc.data)
		if err := os.Truncate(path, tc.size); err != nil {
			t.Fatal(err)
		}
		var err error
		n := allocated(func() {
			var cp *Checkpoint
			if cp, err = Read(dir); err == nil {
				_, err = cp.Streams()
			}
		})
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.name) {
			t.Errorf("%s of %d bytes: %v, want %q", tc.name, tc.size, err, tc.want)
		}
		if n > few {
			t.Errorf("%s of %d bytes: allocated %d bytes", tc.name, tc.size, n)
		}
	}
}

// TestTooManyConnections: what is kept of the connections is bounded.
func TestTooManyConnections(t *testing.T) {
	images := sample(samples + "external")
	one := frame(nil, entryOf(1))
	images["files.img"] = append(header("FILES"), bytes.Repeat(one, maxConns)...)
	cp, err := read(images)
	if err != nil || len(cp.Conns) != maxConns || cp.Conns[0].Local.Port() != 443 {
		t.Fatalf("%d connections: %v", maxConns, err)
	}
	images["files.img"] = append(images["files.img"], one...)
	if _, err := read(images); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("more than %d TCP connections", maxConns)) {
		t.Errorf("one more: %v", err)
	}
}

// TestOtherFiles: an image that is no regular file is refused before it is opened,
// and nobody waits for it.
func TestOtherFiles(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"FIFO":                func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory":           func(path string) error { return os.Mkdir(path, 0o700) },
		"link to a device":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"link to a directory": func(path string) error { return os.Symlink("/", path) },
	} {
		dir := external(t)
		path := filepath.Join(dir, "files.img")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := Read(dir)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "not a regular file") {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the read hangs", name)
		}
	}
}

// TestWrongKind: an image of another kind, to which other rules for what follows an
// entry would apply, is refused.
func TestWrongKind(t *testing.T) {
	for _, kind := range []string{"GHOST_FILE", "IPCNS_MSG", "PAGEMAP", "IMG_COMMON", "TCP_STREAM"} {
		images := sample(samples + "external")
		images["pstree.img"] = append(header(kind), images["pstree.img"][8:]...)
		if _, err := read(images); err == nil || !strings.Contains(err.Error(), "not the number of PSTREE images") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestOldHeader reads images of CRIU before version 1.1 of the images, which begin
// with the number of their kind.
func TestOldHeader(t *testing.T) {
	images := sample(samples + "external")
	for name, data := range images {
		if name != "inventory.img" { // it always begins with its own
			images[name] = data[4:]
		}
	}
	cp, err := read(images)
	if err != nil || len(cp.Conns) != 2 {
		t.Fatalf("got %+v, %v", cp, err)
	}
	if streams, err := cp.Streams(); err != nil || len(streams) != 2 {
		t.Errorf("got %d streams, %v", len(streams), err)
	}
}

// TestSplitSocket: a socket that is given in two parts, which protobuf allows, is the
// one that CRIU sees.
func TestSplitSocket(t *testing.T) {
	images := sample(samples + "external")
	whole, err := proto.Marshal(entryOf(5000))
	if err != nil {
		t.Fatal(err)
	}
	second, err := proto.MarshalOptions{AllowPartial: true}.Marshal(&fdinfo.FileEntry{Isk: &sk_inet.InetSkEntry{DstPort: proto.Uint32(6000)}})
	if err != nil {
		t.Fatal(err)
	}
	entry := append(whole, second...)
	images["files.img"] = append(binary.LittleEndian.AppendUint32(header("FILES"), uint32(len(entry))), entry...)
	cp, err := read(images)
	if err != nil || len(cp.Conns) != 1 || cp.Conns[0].Remote.Port() != 6000 {
		t.Errorf("got %+v, %v", cp, err)
	}
	var merged fdinfo.FileEntry
	if err := proto.Unmarshal(entry, &merged); err != nil || merged.GetIsk().GetDstPort() != 6000 {
		t.Errorf("protobuf has it otherwise: %v, %v", &merged, err)
	}
}

// TestShrinking: a file that is cut while it is read is an error.
func TestShrinking(t *testing.T) {
	dir := external(t)
	path := filepath.Join(dir, "files.img")
	writeFile(t, path, append(header("FILES"), bytes.Repeat(frame(nil, entryOf(1)), 10_000)...))
	err := each(directory(dir), "files.img", "FILES", maxFile, func([]byte) error { return os.Truncate(path, 100) })
	if err == nil || !strings.Contains(err.Error(), "files.img") {
		t.Errorf("got %v", err)
	}
}
