// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"encoding/binary"
	"net/netip"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Sizes of headers without options, in bytes.
const (
	ip4Len = 20
	ip6Len = 40
	tcpLen = 20
	tsLen  = 12 // the timestamps option with two no-operations, as the kernel sends it
)

// IP protocol numbers, and the hop limit of all packets.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoICMPv6 = 58
	hops        = 64
)

// Flags of a TCP header.
const (
	flagPSH = 0x08
	flagACK = 0x10
)

// ack builds a pure ACK of what we have received. Its sequence number is the next
// one that we would use, so that the peer finds it in order.
func ack(s tcp.Stream) []byte { return segment(s, s.SndNxt, flagACK, nil) }

// unackedSegments builds the first unacknowledged segments again, at most n.
func unackedSegments(s tcp.Stream, n int) [][]byte {
	size := s.MSS
	if s.Timestamps {
		size -= tsLen
	}
	if size <= 0 {
		return nil
	}
	var all [][]byte
	data, seq := s.Unacked, s.SndUna
	for len(data) > 0 && len(all) < n {
		part := data[:min(size, len(data))]
		all = append(all, segment(s, seq, flagACK|flagPSH, part))
		data, seq = data[len(part):], seq+uint32(len(part)) // modulo 2^32
	}
	return all
}

// segment builds one segment from us to the peer. Its timestamp is the stream's,
// from before the freeze. The echo is 0, which keeps the peer from measuring a
// round-trip time with it.
func segment(s tcp.Stream, seq uint32, flags byte, data []byte) []byte {
	size := tcpLen
	if s.Timestamps {
		size += tsLen
	}
	b := make([]byte, size, size+len(data))
	binary.BigEndian.PutUint16(b[0:], s.Local.Port())
	binary.BigEndian.PutUint16(b[2:], s.Remote.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], s.RcvNxt)
	b[12], b[13] = byte(size/4)<<4, flags
	binary.BigEndian.PutUint16(b[14:], s.Window)
	if s.Timestamps {
		copy(b[tcpLen:], []byte{1, 1, 8, 10}) // NOP NOP, kind and length of timestamps (RFC 7323)
		binary.BigEndian.PutUint32(b[tcpLen+4:], s.Timestamp)
	}
	b = append(b, data...)
	sum := checksum(pseudo(s.Local.Addr(), s.Remote.Addr(), protoTCP, len(b)), b)
	binary.BigEndian.PutUint16(b[16:], sum)
	return packet(s.Local.Addr(), s.Remote.Addr(), protoTCP, b)
}

// unreachable builds an ICMP error from us to one end of the connection. It quotes
// the segment whose first byte is seq, on its way from one end to the other. For
// IPv4 it says host unreachable, for IPv6 no route: the codes that RFC 6069 names.
func unreachable(to, us netip.Addr, from, dest netip.AddrPort, seq uint32) []byte {
	quoted := make([]byte, tcpLen) // its first 8 bytes, ports and sequence number, identify it
	binary.BigEndian.PutUint16(quoted[0:], from.Port())
	binary.BigEndian.PutUint16(quoted[2:], dest.Port())
	binary.BigEndian.PutUint32(quoted[4:], seq)
	if from.Addr().Is4() {
		b := append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, packet(from.Addr(), dest.Addr(), protoTCP, quoted[:8])...)
		binary.BigEndian.PutUint16(b[2:], checksum(0, b))
		return packet(us, to, protoICMP, b)
	}
	quoted[12] = tcpLen / 4 << 4 // the whole header: RFC 4443 asks for as much as fits
	b := append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, packet(from.Addr(), dest.Addr(), protoTCP, quoted)...)
	binary.BigEndian.PutUint16(b[2:], checksum(pseudo(us, to, protoICMPv6, len(b)), b))
	return packet(us, to, protoICMPv6, b)
}

// packet puts an IP header before a payload.
func packet(from, to netip.Addr, proto byte, payload []byte) []byte {
	if from.Is4() {
		b := make([]byte, ip4Len, ip4Len+len(payload))
		b[0] = 4<<4 | ip4Len/4
		binary.BigEndian.PutUint16(b[2:], uint16(ip4Len+len(payload))) // at most an MSS
		b[6] = 0x40                                                    // do not fragment
		b[8], b[9] = hops, proto
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		binary.BigEndian.PutUint16(b[10:], checksum(0, b))
		return append(b, payload...)
	}
	b := make([]byte, ip6Len, ip6Len+len(payload))
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload))) // at most an MSS
	b[6], b[7] = proto, hops
	copy(b[8:], from.AsSlice())
	copy(b[24:], to.AsSlice())
	return append(b, payload...)
}

// pseudo sums the pseudo header of TCP and ICMPv6 (RFC 9293, section 3.1, and
// RFC 8200, section 8.1).
func pseudo(from, to netip.Addr, proto byte, length int) uint32 {
	return sum(0, from.AsSlice()) + sum(0, to.AsSlice()) + uint32(proto) + uint32(length) // at most an MSS
}

func sum(s uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

// checksum is the Internet checksum (RFC 1071) over b, continued from start.
func checksum(start uint32, b []byte) uint16 {
	s := sum(start, b)
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s) // folded
}
