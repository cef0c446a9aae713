// SPDX-License-Identifier: Apache-2.0

// Package wiretest has what tests of packets need: streams to build them from, and
// another hand that takes them apart.
package wiretest

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Stream returns an open connection with nothing in flight.
func Stream(local, remote string) tcp.Stream {
	return tcp.Stream{
		Tuple: tcp.NewTuple(netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)),
		State: tcp.Established, SndUna: 0xfffffff0, SndNxt: 0xfffffff0, RcvNxt: 2000, RcvAcked: 2000, Window: 501,
		MSS: 100, Timestamps: true, Timestamp: 77,
	}
}

// Ends are the two ends of a connection, for each IP family.
var Ends = [][2]string{
	{"192.0.2.1:443", "192.0.2.2:40000"},
	{"[2001:db8::1]:443", "[2001:db8::2]:40000"},
}

// Decode takes a packet apart and fails where a length or a checksum is wrong.
func Decode(t *testing.T, p []byte) gopacket.Packet {
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
