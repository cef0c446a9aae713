// SPDX-License-Identifier: Apache-2.0

package criuimg

import (
	"testing"
	"time"

	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/stats"
	"google.golang.org/protobuf/proto"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// TestSocketsOfSample reads the sockets of a real dump.
func TestSocketsOfSample(t *testing.T) {
	cp, err := ReadFS(sample(samples + "external"))
	if err != nil {
		t.Fatal(err)
	}
	socks, err := cp.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	conns, listening := 0, 0
	for _, s := range socks {
		switch {
		case s.Connection:
			conns++
			q, err := cp.Queues(s)
			if err != nil || !s.Keepalive || !q.Scale || !q.SACK || !q.Timestamps || q.ECN || q.MSS < 65000 || q.SendScale != 10 {
				t.Errorf("%+v: %+v, %v", s, q, err)
			}
		case s.Listens():
			listening++
			if s.Remote.IsValid() || s.State == tcp.Listen && s.Backlog != 4096 {
				t.Errorf("%+v", s)
			}
		}
	}
	if conns != 2 || listening != 4 {
		t.Errorf("%d connections, %d listening sockets", conns, listening)
	}
}

// TestQueues reads how long they are, and refuses queues that are not in the file.
func TestQueues(t *testing.T) {
	e := streamEntry(8, 4, 1)
	e.OptMask, e.Nodelay = proto.Uint32(2|8), proto.Bool(true)
	for queues, fits := range map[string]bool{"receivedsent": true, "cut": false} {
		cp := &Checkpoint{images: memory{"tcp-stream-1f.img": append(frame(header("TCP_STREAM"), e), queues...)}}
		q, err := cp.Queues(Socket{inode: 0x1f})
		want := Queues{Received: 8, Sent: 4, Unsent: 1, MSS: 1460, SACK: true, ECN: true, SendScale: 7, NoDelay: true}
		if (err == nil) != fits || fits && q != want {
			t.Errorf("%s: %+v, %v", queues, q, err)
		}
	}
}

// TestTasks reads the processes. One without an image has no name.
func TestTasks(t *testing.T) {
	images := sample(samples + "external")
	cp := &Checkpoint{images: images}
	tasks, err := cp.Tasks()
	if err != nil || len(tasks) != 1 || tasks[0].PID != 50 || tasks[0].Comm != "" || tasks[0].Threads == 0 {
		t.Errorf("%+v, %v", tasks, err)
	}
	images["core-50.img"] = frame(header("CORE"), &criu_core.CoreEntry{
		Mtype: criu_core.CoreEntry_X86_64.Enum(),
		Tc: &criu_core.TaskCoreEntry{
			TaskState: proto.Uint32(1), ExitCode: proto.Uint32(0), Personality: proto.Uint32(0), Flags: proto.Uint32(0),
			BlkSigset: proto.Uint64(0), Comm: proto.String("web"),
		},
	})
	if tasks, err = cp.Tasks(); err != nil || tasks[0].Comm != "web" {
		t.Errorf("%+v, %v", tasks, err)
	}
	images["core-50.img"] = images["core-50.img"][:20]
	if _, err = cp.Tasks(); err == nil {
		t.Error("a damaged image was accepted")
	}
}

// TestFrozenTime reads stats-dump, which begins as the images of a service do.
func TestFrozenTime(t *testing.T) {
	zero := proto.Uint64(0)
	data := frame(header("STATS"), &stats.StatsEntry{Dump: &stats.DumpStatsEntry{
		FreezingTime: proto.Uint32(1), FrozenTime: proto.Uint32(53450), MemdumpTime: proto.Uint32(1), MemwriteTime: proto.Uint32(1),
		PagesScanned: zero, PagesSkippedParent: zero, PagesWritten: zero, PagesLazy: zero,
	}})
	copy(data, []byte{0x40, 0x59, 0x10, 0x55}) // IMG_SERVICE_MAGIC of criu/include/magic.h
	if d, err := FrozenTime(memory{"stats-dump": data}); err != nil || d != 53450*time.Microsecond {
		t.Errorf("%s, %v", d, err)
	}
}

// FuzzDetail reads what [Checkpoint.Sockets], Queues and Tasks read.
func FuzzDetail(f *testing.F) {
	images := sample(samples + "external")
	f.Add(images["files.img"], images["tcp-stream-4405b.img"], images["pstree.img"])
	f.Add(frame(header("FILES"), entryOf(1)), frame(header("TCP_STREAM"), streamEntry(0, 0, 0)), []byte{})
	f.Fuzz(func(t *testing.T, files, stream, tree []byte) {
		cp := &Checkpoint{images: memory{"files.img": files, "tcp-stream-1.img": stream, "pstree.img": tree}}
		socks, _ := cp.Sockets()
		for _, s := range socks {
			if s.Connection && (!s.Local.IsValid() || !s.Remote.IsValid() || s.Local.Addr().Is4In6()) {
				t.Errorf("an invalid connection: %+v", s)
			}
		}
		q, err := cp.Queues(Socket{inode: 1})
		if err == nil && q.Received+q.Sent > len(stream) {
			t.Errorf("queues of %d and %d bytes in an image of %d", q.Received, q.Sent, len(stream))
		}
		if tasks, _ := cp.Tasks(); len(tasks) > maxTasks {
			t.Errorf("%d tasks", len(tasks))
		}
	})
}
