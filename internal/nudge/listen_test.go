// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire/wiretest"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// TestListen hears what is retransmitted to a frozen namespace, which nothing in it
// receives.
func TestListen(t *testing.T) {
	ns := nstest.New(t)
	isolated, err := ns.Isolate()
	nstest.Must(t, err)
	freezer, err := rules.Open(isolated, backend.NFTables)
	nstest.Must(t, err)
	defer freezer.Close() // the namespace goes, too
	nstest.Must(t, freezer.Freeze(time.Minute))
	l, err := Listen(ns)
	nstest.Must(t, err)
	s, err := Open(ns)
	nstest.Must(t, err)
	defer s.Close()
	nstest.Must(t, s.Mark(rules.Mark))
	want := Oldest{}
	var sent [][]byte
	for _, e := range [][2]string{{"127.0.0.1:5", "127.0.0.2:6"}, {"[::1]:5", "[::1]:6"}} {
		peers := wiretest.Stream(e[1], e[0])
		want[peers.Reverse()] = peers.SndUna
		sent = append(sent, wire.Of(peers, peers.SndUna, wire.FlagACK, []byte("again")).Packet())
	}
	for began := time.Now(); time.Since(began) < 4*quickest; time.Sleep(quickest / 10) {
		nstest.Must(t, s.Send(sent, 0))
	}
	for range 2 {
		if heard, err := l.Stop(); err != nil || !maps.Equal(heard, want) {
			t.Errorf("heard %v (%v), want %v", heard, err, want)
		}
	}
}

// TestListenShort stops before any peer can have retransmitted.
func TestListenShort(t *testing.T) {
	l, err := Listen(nstest.New(t))
	nstest.Must(t, err)
	if heard, err := l.Stop(); err != nil || len(heard) > 0 {
		t.Errorf("heard %v (%v)", heard, err)
	}
	var none *Listener
	if heard, err := none.Stop(); err != nil || heard != nil {
		t.Errorf("nil: heard %v (%v)", heard, err)
	}
}

func TestHear(t *testing.T) {
	for _, e := range wiretest.Ends {
		peers := wiretest.Stream(e[1], e[0])
		at := func(seq uint32, data string) []byte { return wire.Of(peers, seq, wire.FlagACK, []byte(data)).Packet() }
		syn := at(1, "x")
		tcpHeader := len(syn) - len("x") - wire.TCPLen - wire.TimestampsLen
		syn[tcpHeader+13] = 0x02
		udp := at(1, "x")
		protocol := 6 // of IPv6
		if peers.Is4() {
			protocol = 9
		}
		udp[protocol] = 17
		for _, tc := range []struct {
			name    string
			packets [][]byte
			want    uint32
			none    bool
		}{
			{name: "one", packets: [][]byte{at(7, "x")}, want: 7},
			{name: "the oldest", packets: [][]byte{at(9, "x"), at(7, "x"), at(8, "x")}, want: 7},
			{name: "modulo 2^32", packets: [][]byte{at(3, "x"), at(0xfffffff0, "x"), at(4, "x")}, want: 0xfffffff0},
			{name: "cut off", packets: [][]byte{at(7, "many bytes")[:tcpHeader+wire.TCPLen]}, want: 7},
			{name: "no data", packets: [][]byte{at(7, "")}, none: true},
			{name: "SYN", packets: [][]byte{syn}, none: true},
			{name: "not TCP", packets: [][]byte{udp}, none: true},
			{name: "part of a header", packets: [][]byte{at(7, "x")[:tcpHeader+wire.TCPLen-1], at(7, "x")[:5], nil}, none: true},
		} {
			heard := Oldest{}
			for _, p := range tc.packets {
				heard.hear(p)
			}
			if got, ok := heard[peers.Reverse()]; ok == tc.none || got != tc.want || len(heard) > 1 {
				t.Errorf("%s, %s: heard %v, want %d", e[0], tc.name, heard, tc.want)
			}
		}
	}
}

// TestHearMany bounds what is remembered.
func TestHearMany(t *testing.T) {
	peers := wiretest.Stream(wiretest.Ends[0][1], wiretest.Ends[0][0])
	heard := make(Oldest, maxHeard)
	for i := range uint32(maxHeard) {
		peer := netip.AddrPortFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i))), 1)
		heard[tcp.NewTuple(peers.Remote, peer)] = i
	}
	heard.hear(wire.Of(peers, 7, wire.FlagACK, []byte("x")).Packet())
	if _, ok := heard[peers.Reverse()]; ok || len(heard) != maxHeard {
		t.Errorf("%d connections are remembered", len(heard))
	}
}

func FuzzHear(f *testing.F) {
	for _, e := range wiretest.Ends {
		f.Add(wire.Of(wiretest.Stream(e[1], e[0]), 7, wire.FlagACK, []byte("x")).Packet())
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		heard := Oldest{}
		heard.hear(packet)
		if len(heard) > 1 {
			t.Errorf("heard %v in one packet", heard)
		}
	})
}

func TestAcks(t *testing.T) {
	for _, e := range wiretest.Ends {
		s := wiretest.Stream(e[0], e[1])
		for _, tc := range []struct {
			name   string
			heard  Oldest
			limit  int
			errors int
		}{
			{"nothing heard", nil, 16, 0},
			{"all was acknowledged", Oldest{s.Tuple: s.RcvNxt}, 16, 0},
			{"new data", Oldest{s.Tuple: s.RcvNxt + 1}, 16, 0},
			{"less was acknowledged", Oldest{s.Tuple: s.RcvNxt - 100}, 16, errorsPerPeer},
			{"a tight limit", Oldest{s.Tuple: s.RcvNxt - 100}, 3, 2},
		} {
			got := Acks([]tcp.Stream{s}, tc.heard, tc.limit)
			if len(got) != tc.errors+1 {
				t.Errorf("%s: %d packets, want %d errors and an ACK", tc.name, len(got), tc.errors)
				continue
			}
			last := wiretest.Decode(t, got[len(got)-1])
			if l, ok := last.Layer(layers.LayerTypeTCP).(*layers.TCP); !ok || l.Ack != s.RcvNxt {
				t.Errorf("%s: the last packet is %v, want the ACK", tc.name, last)
			}
		}
	}
}
