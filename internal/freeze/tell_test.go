// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"fmt"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// TestTellPeers has the connections that records are about tell their peers of their
// windows, and no others: in a namespace of which only a tree's own connections were
// frozen these are everybody's. Peers with data in flight are not told.
func TestTellPeers(t *testing.T) {
	a, b := nstest.Pair(t)
	for i, tc := range []struct {
		name    string
		records func(conns []tcp.Tuple) []*record.Record
		told    int32
	}{
		{"no record", func([]tcp.Tuple) []*record.Record { return nil }, 3},
		{"the whole namespace", func([]tcp.Tuple) []*record.Record { return []*record.Record{{Scope: record.NetNS}} }, 3},
		{"in flight", func(conns []tcp.Tuple) []*record.Record {
			return []*record.Record{{Scope: record.NetNS, InFlight: conns[:1]}}
		}, 2},
		{"one tree's connections", func(conns []tcp.Tuple) []*record.Record {
			return []*record.Record{{Scope: record.Connections, Conns: conns[:1]}}
		}, 1},
		{"two trees' connections", func(conns []tcp.Tuple) []*record.Record {
			return []*record.Record{{Scope: record.Connections, Conns: conns[:1]}, {Scope: record.Connections, Conns: conns[1:2], InFlight: conns[:1]}}
		}, 1},
		{"none", func([]tcp.Tuple) []*record.Record { return []*record.Record{{Scope: record.Connections}} }, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conns := nstest.Connect(t, a, b, fmt.Sprintf("%s:%d", nstest.B4, 20000+i), 3)
			w := hearWindows(t, b)
			tellPeers(a, tc.records(conns)...)
			for deadline := time.Now().Add(5 * time.Second); w.opened.Load() < tc.told && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			}
			time.Sleep(20 * time.Millisecond)
			if n := w.opened.Load(); n != tc.told {
				t.Errorf("%d peers are told, want %d", n, tc.told)
			}
		})
	}
}
