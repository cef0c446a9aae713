// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

func stream(local, remote string) tcp.Stream {
	return tcp.Stream{
		Tuple: tcp.NewTuple(netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)),
		State: tcp.Established, SndUna: 0xfffffff0, SndNxt: 0xfffffff0, RcvNxt: 2000, RcvAcked: 2000, Window: 501,
		MSS: 100, Timestamps: true, Timestamp: 77,
	}
}

var ends = [][2]string{
	{"192.0.2.1:443", "192.0.2.2:40000"},
	{"[2001:db8::1]:443", "[2001:db8::2]:40000"},
}

// decode takes a packet apart and fails where a length or a checksum is wrong.
func decode(t *testing.T, p []byte) gopacket.Packet {
	t.Helper()
	first := layers.LayerTypeIPv4
	if p[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	got := gopacket.NewPacket(p, first, gopacket.Default)
	if e := got.ErrorLayer(); e != nil {
		t.Fatalf("%x: %v", p, e.Error())
	}
	// Built anew by another hand it must be the same, checksums included.
	opts := gopacket.SerializeOptions{ComputeChecksums: true, FixLengths: true}
	buf := gopacket.NewSerializeBuffer()
	var parts []gopacket.SerializableLayer
	for _, l := range got.Layers() {
		switch l := l.(type) {
		case *layers.TCP:
			if err := l.SetNetworkLayerForChecksum(got.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
			parts = append(parts, l)
		case *layers.ICMPv6:
			if err := l.SetNetworkLayerForChecksum(got.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
			parts = append(parts, l, gopacket.Payload(l.LayerPayload()))
		case *layers.ICMPv4:
			parts = append(parts, l, gopacket.Payload(l.LayerPayload()))
		case *layers.IPv4:
			parts = append(parts, l)
		case *layers.IPv6:
			parts = append(parts, l)
		case *gopacket.Payload:
			if got.Layer(layers.LayerTypeTCP) != nil {
				parts = append(parts, l)
			}
		}
	}
	if err := gopacket.SerializeLayers(buf, opts, parts...); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf.Bytes(), p) {
		t.Errorf("the packet is\n%x, another encoder makes\n%x", p, buf.Bytes())
	}
	return got
}

func TestAck(t *testing.T) {
	for _, e := range ends {
		for _, timestamps := range []bool{true, false} {
			s := stream(e[0], e[1])
			s.Timestamps = timestamps
			p := decode(t, ack(s))
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

// TestUnackedSegments cuts the unacknowledged data into segments, across the end of the
// sequence space, and never beyond the limit.
func TestUnackedSegments(t *testing.T) {
	for _, e := range ends {
		s := stream(e[0], e[1])
		data := bytes.Repeat([]byte("0123456789"), 25) // 250 bytes in segments of 88
		s.Unacked, s.SndNxt = data, s.SndUna+250
		var got []byte
		seq := s.SndUna
		for _, b := range unackedSegments(s, 10) {
			h := decode(t, b).Layer(layers.LayerTypeTCP).(*layers.TCP)
			if h.Seq != seq || h.Ack != s.RcvNxt || h.FIN || h.SYN || h.RST {
				t.Errorf("got %+v, want sequence number %d", h, seq)
			}
			got = append(got, h.Payload...)
			seq += uint32(len(h.Payload))
		}
		if !bytes.Equal(got, data) {
			t.Errorf("repeated %d bytes, want the %d that were queued", len(got), len(data))
		}
		if n := len(unackedSegments(s, 2)); n != 2 {
			t.Errorf("%d segments, allowed were 2", n)
		}
	}
}

func TestUnreachable(t *testing.T) {
	for _, e := range ends {
		s := stream(e[0], e[1])
		b := unreachable(s.Remote.Addr(), s.Local.Addr(), s.Remote, s.Local, s.RcvNxt)
		p := decode(t, b)
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

func TestToPeer(t *testing.T) {
	for _, tc := range []struct {
		name           string
		state, unacked int
		limit, want    int
	}{
		{"nothing in flight", tcp.Established, 0, 16, 1 + errorsPerPeer},
		{"one segment", tcp.Established, 50, 16, 1 + errorsPerPeer},
		{"many segments", tcp.CloseWait, 5000, 16, maxSegments + errorsPerPeer},
		{"a tight limit", tcp.Established, 5000, 2, 2},
		{"our FIN is out", tcp.FinWait2, 0, 16, 1 + errorsPerPeer},
		{"not open yet", tcp.SynSent, 0, 16, 0},
		{"listening", tcp.Listen, 0, 16, 0},
	} {
		s := stream(ends[0][0], ends[0][1])
		s.State, s.Unacked = tc.state, make([]byte, tc.unacked)
		s.SndNxt = s.SndUna + uint32(tc.unacked)
		if got := len(toPeer(s, tc.limit)); got != tc.want {
			t.Errorf("%s: %d packets, want %d", tc.name, got, tc.want)
		}
	}
	s := stream(ends[0][0], ends[0][1])
	s.RcvAcked -= 100
	if got := len(toPeer(s, 16)); got != errorsPerPeer+1+errorsPerPeer {
		t.Errorf("with data that was not acknowledged: %d packets", got)
	}
	s = stream(ends[1][0], ends[1][1])
	if got := toOwnKernel(s, 3); got != nil {
		t.Errorf("our kernel is told about nothing in flight: %d packets", len(got))
	}
	s.SndNxt++
	if got := toOwnKernel(s, 3); len(got) != 3 {
		t.Errorf("%d packets, want 3", len(got))
	}
}

func TestAnnouncements(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	p := gopacket.NewPacket(announcement(mac, netip.MustParseAddr("192.0.2.1")), layers.LayerTypeEthernet, gopacket.Default)
	arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
	if !ok || !bytes.Equal(arp.SourceProtAddress, arp.DstProtAddress) || !bytes.Equal(arp.SourceHwAddress, mac) || arp.Operation != layers.ARPRequest {
		t.Errorf("got %v", p)
	}
	for _, frame := range [][]byte{
		announcement(mac, netip.MustParseAddr("2001:db8::1")),
		solicitation(mac, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::1:2:3")),
	} {
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		ip, ok := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		if !ok || ip.HopLimit != 255 || p.ErrorLayer() != nil {
			t.Fatalf("got %v", p)
		}
		decode(t, frame[14:])
	}
	if dst := solicitation(mac, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::1:2:3"))[:6]; !bytes.Equal(dst, []byte{0x33, 0x33, 0xff, 2, 0, 3}) {
		t.Errorf("sent to %x", dst)
	}
}
