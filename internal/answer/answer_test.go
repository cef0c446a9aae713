// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire/wiretest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// start is when the tables of tests begin; they were frozen a moment before.
var (
	start  = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	frozen = start.Add(-100 * time.Millisecond)
)

// from returns a segment of the stream's peer, seq bytes after what we have received.
func from(s tcp.Stream, seq int32, flags byte, data string) wire.Segment {
	return wire.Segment{
		Tuple: s.Reverse(), Seq: s.RcvNxt + uint32(seq), Ack: s.SndNxt, Flags: flags, Window: 100,
		Timestamps: s.Timestamps, Timestamp: 4711, Data: []byte(data),
	}
}

// TestReply answers what asks for an answer, at once or when it is ripe, and nothing else.
func TestReply(t *testing.T) {
	const ack = wire.FlagACK
	for _, tc := range []struct {
		what  string
		seq   int32
		flags byte
		data  string
		after time.Duration // since start, for the first time it comes
		ripe  bool          // once it has come again, later
		now   bool          // at once
	}{
		{"window probe, keep-alive", -1, ack, "", 0, true, true},
		{"old keep-alive, with a byte", -1, ack, "x", 0, true, true},
		{"repeated from before", -10, ack, "0123456789", 0, true, true},
		{"acknowledgement", 0, ack, "", 0, false, false},
		{"acknowledgement of the last byte sent", 5, ack, "", 0, false, false},
		{"in flight", 0, ack | wire.FlagPSH, "data", 1200 * time.Millisecond, true, true},
		{"in flight, too early", 0, ack, "data", 500 * time.Millisecond, true, false},
		{"in flight, further on", 1000, ack, "data", 1200 * time.Millisecond, true, true},
		{"new data", 0, ack, "data", time.Hour, true, false},
		{"new data after what is known", -3, ack, "data", time.Hour, true, false},
		{"end", 0, ack | wire.FlagFIN, "", time.Hour, true, false},
		{"SYN", 0, wire.FlagSYN, "", 0, false, false},
		{"SYN and ACK", -1, wire.FlagSYN | ack, "", 0, false, false},
		{"reset", -1, wire.FlagRST, "", 0, false, false},
		{"reset with data", 0, wire.FlagRST | ack, "data", 0, false, false},
	} {
		for _, e := range wiretest.Ends {
			for _, timestamps := range []bool{true, false} {
				s := wiretest.Stream(e[0], e[1])
				s.Timestamps, s.RcvNxt = timestamps, 3 // near the end of the sequence space
				table := New([]tcp.Stream{s}, nil, frozen, start)
				packet := from(s, tc.seq, tc.flags, tc.data).Packet()
				at := start.Add(tc.after)
				_, now := table.Reply(packet, at)
				answer, ripened := table.Reply(packet, at.Add(ripe))
				if now != tc.now || ripened != tc.ripe {
					t.Errorf("%s, %s: answered at once %v, when ripe %v; want %v, %v", e[0], tc.what, now, ripened, tc.now, tc.ripe)
				}
				if ripened {
					checkAnswer(t, s, answer)
				}
			}
		}
	}
}

// checkAnswer checks every field that matters of an answer.
func checkAnswer(t *testing.T, s tcp.Stream, answer []byte) {
	t.Helper()
	wiretest.Decode(t, answer)
	got, size, ok := wire.Parse(answer)
	want := wire.Segment{Tuple: s.Tuple, Seq: s.SndNxt, Ack: s.RcvNxt, Flags: wire.FlagACK, Timestamps: s.Timestamps}
	if s.Timestamps {
		want.Timestamp, want.Echo = s.Timestamp, 4711
	}
	if !ok || size != 0 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the answer is %+v with %d bytes, want %+v", got, size, want)
	}
	h := wiretest.Decode(t, answer).Layer(layers.LayerTypeTCP).(*layers.TCP)
	if h.Window != 0 || !h.ACK || h.SYN || h.FIN || h.RST || h.PSH || h.URG || len(h.Payload) > 0 {
		t.Errorf("the answer is %+v", h)
	}
}

// TestReplyOnlyOurs answers for no connection but those of the images which have a peer.
func TestReplyOnlyOurs(t *testing.T) {
	s := wiretest.Stream("192.0.2.1:443", "192.0.2.2:40000")
	opening, over := s, s
	opening.State, opening.Remote = tcp.SynSent, netip.MustParseAddrPort("192.0.2.2:40001")
	over.State, over.Remote = tcp.TimeWait, netip.MustParseAddrPort("192.0.2.2:40002")
	table := New([]tcp.Stream{s, opening, over}, nil, frozen, start)
	if table.Len() != 1 || !slices.Equal(table.Ports(), []uint16{443}) {
		t.Errorf("%d connections, ports %v", table.Len(), table.Ports())
	}
	for _, change := range []func(*wire.Segment){
		func(p *wire.Segment) { p.Local = netip.MustParseAddrPort("192.0.2.2:40001") },
		func(p *wire.Segment) { p.Local = netip.MustParseAddrPort("192.0.2.2:40002") },
		func(p *wire.Segment) { p.Local = netip.MustParseAddrPort("192.0.2.3:40000") },
		func(p *wire.Segment) { p.Remote = netip.MustParseAddrPort("192.0.2.1:444") },
		func(p *wire.Segment) { p.Tuple = p.Reverse() },
	} {
		p := from(s, -1, wire.FlagACK, "")
		change(&p)
		if _, ok := table.Reply(p.Packet(), start); ok {
			t.Errorf("%s was answered", p.Tuple)
		}
	}
	if _, ok := table.Reply(from(s, -1, wire.FlagACK, "").Packet(), start); !ok {
		t.Error("ours was not answered")
	}
}

// TestQuiet answers what a quiet peer sends at once, whatever it is: it has nothing in
// flight, and probes with what it has to send next.
func TestQuiet(t *testing.T) {
	s := wiretest.Stream("192.0.2.1:443", "192.0.2.2:40000")
	table := New([]tcp.Stream{s}, tcp.SetOf([]tcp.Tuple{s.Tuple}), frozen, start)
	answer, ok := table.Reply(from(s, 0, wire.FlagACK, "x").Packet(), start.Add(time.Hour))
	if !ok {
		t.Fatal("no answer")
	}
	checkAnswer(t, s, answer)
	if got := table.InFlight(); len(got) != 0 {
		t.Errorf("in flight: %v", got)
	}
}

// TestInFlight knows the peers with data, each once.
func TestInFlight(t *testing.T) {
	a, b := wiretest.Stream("192.0.2.1:443", "192.0.2.2:40000"), wiretest.Stream("192.0.2.1:443", "192.0.2.2:40001")
	table := New([]tcp.Stream{a, b}, nil, frozen, start)
	for i := range 3 {
		table.Reply(from(a, 0, wire.FlagACK, "data").Packet(), start.Add(time.Duration(i)*time.Second))
		table.Reply(from(b, -1, wire.FlagACK, "").Packet(), start.Add(time.Duration(i)*time.Second))
	}
	if got := table.InFlight(); !slices.Equal(got, []tcp.Tuple{a.Tuple}) {
		t.Errorf("in flight: %v", got)
	}
}

// TestRate answers one connection ten times a second at most, and all of them together
// no more often than is allowed, whatever comes.
func TestRate(t *testing.T) {
	var streams []tcp.Stream
	for p := range uint16(2 * perSecond) {
		streams = append(streams, wiretest.Stream("192.0.2.1:443", netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), 1000+p).String()))
	}
	probe := func(i int) []byte { return from(streams[i], -1, wire.FlagACK, "").Packet() }
	table, n := New(streams[:1], nil, frozen, start), 0
	for ms := range 1000 {
		if _, ok := table.Reply(probe(0), start.Add(time.Duration(ms)*time.Millisecond)); ok {
			n++
		}
	}
	if n != 10 {
		t.Errorf("one connection got %d answers in a second", n)
	}
	table, n = New(streams, nil, frozen, start), 0
	const seconds = 3
	for ms := range seconds * 1000 {
		for i := range 20 {
			if _, ok := table.Reply(probe((20*ms+i)%len(streams)), start.Add(time.Duration(ms)*time.Millisecond)); ok {
				n++
			}
		}
	}
	if most := (seconds + 1) * perSecond; n > most || n < seconds*perSecond {
		t.Errorf("all got %d answers in %d seconds, want up to %d", n, seconds, most)
	}
}

// FuzzReply promises that no packet, whoever has made it, gets anything but an answer: to
// the peer of a connection, without data, with the numbers of the images.
func FuzzReply(f *testing.F) {
	var streams []tcp.Stream
	for _, e := range wiretest.Ends {
		s := wiretest.Stream(e[0], e[1])
		streams = append(streams, s)
		f.Add(from(s, -1, wire.FlagACK, "").Packet(), uint16(0))
		f.Add(from(s, 0, wire.FlagACK, "data").Packet(), uint16(2000))
		f.Add(from(s, 0, wire.FlagSYN, "").Packet(), uint16(9))
	}
	f.Fuzz(func(t *testing.T, packet []byte, ms uint16) {
		table := New(streams, nil, frozen, start)
		for _, at := range []time.Duration{0, time.Duration(ms) * time.Millisecond} {
			answer, ok := table.Reply(packet, start.Add(at))
			if !ok {
				continue
			}
			wiretest.Decode(t, answer)
			a, size, ok := wire.Parse(answer)
			i := slices.IndexFunc(streams, func(s tcp.Stream) bool { return s.Tuple == a.Tuple })
			if !ok || size != 0 || i < 0 || a.Seq != streams[i].SndNxt || a.Ack != streams[i].RcvNxt || a.Flags != wire.FlagACK || a.Window != 0 {
				t.Errorf("the answer to %x is %x", packet, answer)
			}
			asked, _, _ := wire.Parse(packet)
			if asked.Flags&(wire.FlagSYN|wire.FlagRST) != 0 {
				t.Errorf("%x was answered", packet)
			}
			if _, ok := New([]tcp.Stream{{Tuple: a.Reverse(), State: tcp.Established, SndNxt: a.Ack, RcvNxt: a.Seq}}, nil, frozen, start).Reply(answer, start.Add(time.Hour)); ok {
				t.Errorf("the answer %x gets an answer", answer)
			}
		}
	})
}
