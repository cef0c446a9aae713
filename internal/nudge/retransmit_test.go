// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire/wiretest"
)

// TestLimit has peers that acknowledge nothing. Each connection gets exactly its
// limit, however few packets the others take of theirs.
func TestLimit(t *testing.T) {
	busy, idle := wiretest.Stream(wiretest.Ends[0][0], wiretest.Ends[0][1]), wiretest.Stream(wiretest.Ends[1][0], wiretest.Ends[1][1])
	busy.Unacked, busy.SndNxt = make([]byte, 5000), busy.SndUna+5000
	busy.RcvAcked -= 100
	mild := wiretest.Stream("192.0.2.1:443", "192.0.2.3:40000")
	mild.Unacked, mild.SndNxt = make([]byte, 50), mild.SndUna+50
	idle.State = tcp.SynSent
	streams := []tcp.Stream{idle, busy, mild}
	for _, limit := range []int{1, 8, 16, 20, 64} {
		got := map[netip.Addr]int{}
		count := func(packets [][]byte) {
			for _, p := range packets {
				_, to := wiretest.Decode(t, p).NetworkLayer().NetworkFlow().Endpoints()
				got[netip.MustParseAddr(to.String())]++
			}
		}
		packets := Plan(streams, limit, false)
		count(packets)
		r := retransmission{
			progress: func([]tcp.Tuple) (map[tcp.Tuple]tcp.Progress, error) {
				return map[tcp.Tuple]tcp.Progress{busy.Tuple: {Waits: true}, mild.Tuple: {Waits: true}}, nil
			},
			send:  func(packets [][]byte) error { count(packets); return nil },
			sleep: func(time.Duration) {},
		}
		sent, err := r.run(streams, limit)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprint(map[netip.Addr]int{busy.Remote.Addr(): limit, mild.Remote.Addr(): limit})
		if fmt.Sprint(got) != want || len(packets)+sent != 2*limit {
			t.Errorf("limit %d: sent %v, want %s; %d and %d packets", limit, got, want, len(packets), sent)
		}
	}
}

func TestMissing(t *testing.T) {
	s := wiretest.Stream(wiretest.Ends[0][0], wiretest.Ends[0][1])
	s.Unacked, s.SndNxt = make([]byte, 150), s.SndUna+150
	for _, tc := range []struct {
		name  string
		acked map[tcp.Tuple]tcp.Progress
		open  int
		seq   uint32
	}{
		{"nothing yet", map[tcp.Tuple]tcp.Progress{s.Tuple: {Acked: 0, Waits: true}}, 1, s.SndUna},
		{"some of it", map[tcp.Tuple]tcp.Progress{s.Tuple: {Acked: 88, Waits: true}}, 1, s.SndUna + 88},
		{"all of it", map[tcp.Tuple]tcp.Progress{s.Tuple: {Acked: 150, Waits: true}}, 0, 0},
		{"nothing in flight any more", nil, 0, 0},
	} {
		packets, open := missing([]unreached{{s, 5}}, tc.acked)
		if len(packets) != tc.open || len(open) != tc.open {
			t.Errorf("%s: %d packets, %d open; want %d", tc.name, len(packets), len(open), tc.open)
			continue
		}
		if tc.open == 1 {
			if h := wiretest.Decode(t, packets[0]).Layer(layers.LayerTypeTCP).(*layers.TCP); h.Seq != tc.seq {
				t.Errorf("%s: sequence number %d, want %d", tc.name, h.Seq, tc.seq)
			}
		}
	}
}
