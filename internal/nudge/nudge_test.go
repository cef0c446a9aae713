// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire/wiretest"
)

func TestRemote(t *testing.T) {
	const us, peer, us6, peer6 = "192.0.2.1:443", "192.0.2.2:40000", "[2001:db8::1]:443", "[2001:db8::2]:40000"
	streams := []tcp.Stream{
		wiretest.Stream(us, peer),
		wiretest.Stream(us, "192.0.2.1:40000"), // to ourselves
		wiretest.Stream("127.0.0.1:443", "127.0.0.1:40000"),
		wiretest.Stream("127.0.0.1:443", "127.0.0.2:40000"), // loopback, though not an address of ours
		wiretest.Stream(us, "[2001:db8::1]:40000"),          // to an address that only another connection shows to be ours
		wiretest.Stream(us6, peer6),
	}
	var before, got []tcp.Tuple
	for _, s := range streams {
		before = append(before, s.Tuple)
	}
	for _, s := range Remote(streams) {
		got = append(got, s.Tuple)
	}
	if want := []tcp.Tuple{streams[0].Tuple, streams[5].Tuple}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for i, s := range streams {
		if s.Tuple != before[i] {
			t.Errorf("stream %d was %v and is %v", i, before[i], s.Tuple)
		}
	}
	if got := Remote(nil); len(got) != 0 {
		t.Errorf("of none: %v", got)
	}
}

// TestPlan has what is urgent of every connection before the rest of any, and our
// own kernel's errors beyond the limit, which is for what leaves the namespace.
func TestPlan(t *testing.T) {
	a, b := wiretest.Stream(wiretest.Ends[0][0], wiretest.Ends[0][1]), wiretest.Stream(wiretest.Ends[1][0], wiretest.Ends[1][1])
	a.Unacked, a.SndNxt = make([]byte, 5000), a.SndUna+5000
	streams := []tcp.Stream{a, b}
	const limit = 8
	of := func(s tcp.Stream) [][]byte { return toPeer(s, limit) }
	want := slices.Concat(of(a)[:urgent], of(b)[:urgent], of(a)[urgent:], of(b)[urgent:])
	if got := Plan(streams, limit, false); !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %x, want %x", got, want)
	}
	own := 0
	backed := Plan(streams, limit, true)
	for _, p := range backed {
		d := wiretest.Decode(t, p)
		from, to := d.NetworkLayer().NetworkFlow().Endpoints()
		if from != to {
			continue
		}
		own++
		if d.Layer(layers.LayerTypeICMPv4) == nil || to.String() != a.Local.Addr().String() {
			t.Errorf("to ourselves: %v", d)
		}
	}
	if own != errorsPerPeer || len(backed) != len(want)+own {
		t.Errorf("%d packets, %d of them to ourselves; want %d more than %d", len(backed), own, errorsPerPeer, len(want))
	}
	for _, limit := range []int{1, 2, 3} {
		if got := len(Plan(streams, limit, false)); got != 2*limit {
			t.Errorf("limit %d: %d packets", limit, got)
		}
	}
	if got := Plan(nil, limit, true); len(got) != 0 {
		t.Errorf("of no connections: %x", got)
	}
}

func TestToPeer(t *testing.T) {
	for _, tc := range []struct {
		name           string
		state, unacked int
		limit, want    int
	}{
		{"nothing in flight", tcp.Established, 0, 16, leading + 1 + errorsPerPeer},
		{"one segment", tcp.Established, 50, 16, leading + 2 + errorsPerPeer},
		{"many segments", tcp.CloseWait, 5000, 16, leading + 1 + maxSegments + errorsPerPeer},
		{"a tight limit", tcp.Established, 5000, 2, 2},
		{"the tightest limit", tcp.Established, 5000, 1, 1},
		{"our FIN is out", tcp.FinWait2, 0, 16, leading + 1 + errorsPerPeer},
		{"not open yet", tcp.SynSent, 0, 16, 0},
		{"listening", tcp.Listen, 0, 16, 0},
	} {
		s := wiretest.Stream(wiretest.Ends[0][0], wiretest.Ends[0][1])
		s.State, s.Unacked = tc.state, make([]byte, tc.unacked)
		s.SndNxt = s.SndUna + uint32(tc.unacked)
		if got := len(toPeer(s, tc.limit)); got != tc.want {
			t.Errorf("%s: %d packets, want %d", tc.name, got, tc.want)
		}
	}
	s := wiretest.Stream(wiretest.Ends[0][0], wiretest.Ends[0][1])
	s.RcvAcked -= 100
	if got := len(toPeer(s, 16)); got != leading+errorsPerPeer+1+errorsPerPeer {
		t.Errorf("with data that was not acknowledged: %d packets", got)
	}
	s.Window, s.Unacked, s.SndNxt = 0, []byte("x"), s.SndUna+1
	for limit := range 17 {
		got := toPeer(s, limit)
		if want := min(errorsPerPeer, limit-1); limit > 1 && !slices.EqualFunc(got[:want], errorsAbout(s, s.RcvNxt, want), bytes.Equal) || len(got) > max(limit, 1) {
			t.Errorf("with a window that stays closed, at most %d packets: %x", limit, got)
		}
	}
	s = wiretest.Stream(wiretest.Ends[1][0], wiretest.Ends[1][1])
	if got := toOwnKernel(s, 3); got != nil {
		t.Errorf("our kernel is told about nothing in flight: %d packets", len(got))
	}
	s.SndNxt++
	if got := toOwnKernel(s, 3); len(got) != 3 {
		t.Errorf("%d packets, want 3", len(got))
	}
}
