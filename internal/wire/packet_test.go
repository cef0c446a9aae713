// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/criu-netfreeze/criu-netfreeze/internal/wire/wiretest"
)

func TestAck(t *testing.T) {
	for _, e := range wiretest.Ends {
		for _, timestamps := range []bool{true, false} {
			s := wiretest.Stream(e[0], e[1])
			s.Timestamps = timestamps
			p := wiretest.Decode(t, ACK(s))
			h, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
			if !ok {
				t.Fatalf("no TCP: %v", p)
			}
			if !h.ACK || h.SYN || h.FIN || h.RST || h.PSH || h.Seq != s.SndNxt || h.Ack != s.RcvNxt || h.Window != s.Window || len(h.Payload) != 0 {
				t.Errorf("%v: got %+v", e, h)
			}
			if timestamps != (len(h.Options) > 0) {
				t.Errorf("options %v", h.Options)
			}
		}
	}
}

// TestUnacked cuts the unacknowledged data into segments, across the end of the
// sequence space, and never beyond the limit.
func TestUnacked(t *testing.T) {
	for _, e := range wiretest.Ends {
		s := wiretest.Stream(e[0], e[1])
		data := bytes.Repeat([]byte("0123456789"), 25) // 250 bytes in segments of 88
		s.Unacked, s.SndNxt = data, s.SndUna+250
		var got []byte
		seq := s.SndUna
		for _, b := range Unacked(s, 10) {
			h := wiretest.Decode(t, b).Layer(layers.LayerTypeTCP).(*layers.TCP)
			if h.Seq != seq || h.Ack != s.RcvNxt || h.FIN || h.SYN || h.RST {
				t.Errorf("got %+v, want sequence number %d", h, seq)
			}
			got = append(got, h.Payload...)
			seq += uint32(len(h.Payload))
		}
		if !bytes.Equal(got, data) {
			t.Errorf("repeated %d bytes, want the %d that were queued", len(got), len(data))
		}
		if n := len(Unacked(s, 2)); n != 2 {
			t.Errorf("%d segments, allowed were 2", n)
		}
	}
}

func TestUnreachable(t *testing.T) {
	for _, e := range wiretest.Ends {
		s := wiretest.Stream(e[0], e[1])
		b := Unreachable(s.Remote.Addr(), s.Local.Addr(), s.Remote, s.Local, s.RcvNxt)
		p := wiretest.Decode(t, b)
		from, to := p.NetworkLayer().NetworkFlow().Endpoints()
		if from.String() != s.Local.Addr().String() || to.String() != s.Remote.Addr().String() {
			t.Errorf("from %s to %s", from, to)
		}
		var quoted []byte
		if s.Is4() {
			icmp := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
			if icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 1) {
				t.Errorf("got %v", icmp.TypeCode)
			}
			quoted = icmp.Payload[20:]
		} else {
			icmp := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
			if icmp.TypeCode != layers.CreateICMPv6TypeCode(1, 0) {
				t.Errorf("got %v", icmp.TypeCode)
			}
			quoted = icmp.Payload[4+40:] // after the unused word
		}
		want := []byte{0x9c, 0x40, 0x01, 0xbb, 0, 0, 0x07, 0xd0} // 40000, 443, 2000
		if !bytes.Equal(quoted[:8], want) {
			t.Errorf("quotes %x, want %x", quoted[:8], want)
		}
	}
}

// TestParse reads what is built, and what is cut off after the headers.
func TestParse(t *testing.T) {
	for _, e := range wiretest.Ends {
		for _, timestamps := range []bool{true, false} {
			s := Of(wiretest.Stream(e[0], e[1]), 7, FlagACK|FlagPSH, []byte("data"))
			if s.Timestamps = timestamps; !timestamps {
				s.Timestamp = 0
			}
			if timestamps {
				s.Echo = 99
			}
			p := s.Packet()
			want := s
			want.Data = nil
			for _, cut := range []int{0, 4} {
				got, size, ok := Parse(p[:len(p)-cut])
				if !ok || size != 4 || !reflect.DeepEqual(got, want) {
					t.Errorf("got %+v, %d bytes, %v; want %+v", got, size, ok, want)
				}
			}
			for n := range len(p) - 4 - TimestampsLen {
				if _, _, ok := Parse(p[:n]); ok {
					t.Errorf("%d bytes of %d are a segment", n, len(p))
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, e := range wiretest.Ends {
		f.Add(ACK(wiretest.Stream(e[0], e[1])))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		s, size, ok := Parse(packet)
		if !ok {
			return
		}
		if size < 0 || s.Data != nil {
			t.Errorf("%+v, %d bytes", s, size)
		}
		if again, _, ok := Parse(s.Packet()); !ok || !reflect.DeepEqual(again, s) {
			t.Errorf("built again: %+v, want %+v", again, s)
		}
	})
}
