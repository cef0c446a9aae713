// SPDX-License-Identifier: Apache-2.0

// Package wire builds and reads the packets that this project sends and hears by
// itself, and has the sockets for them: whole IP packets that carry TCP or an error
// about it. What they say, and when, is up to others.
package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Sizes of headers without options, in bytes.
const (
	ip4Len = 20
	ip6Len = 40
	// TCPLen is the size of a TCP header.
	TCPLen = 20
	// TimestampsLen is the size of the timestamps option with two no-operations, as
	// the kernel sends it (RFC 7323, appendix A).
	TimestampsLen = 12
)

// The IP protocol numbers of what packets carry.
const (
	ICMP   = 1
	TCP    = 6
	ICMPv6 = 58
)

// hops is the hop limit of all packets.
const hops = 64

// The flags of a TCP header (RFC 9293, section 3.1).
const (
	FlagFIN = 0x01
	FlagSYN = 0x02
	FlagRST = 0x04
	FlagPSH = 0x08
	FlagACK = 0x10
)

// Segment is one TCP segment. Local is its sender.
type Segment struct {
	tcp.Tuple
	Seq, Ack uint32 // sequence numbers modulo 2^32
	Flags    byte
	Window   uint16 // as in the header, which means scaled

	Timestamps      bool   // it has the option of RFC 7323, with these values:
	Timestamp, Echo uint32 // TSval and TSecr

	Data []byte
}

// Of returns a segment from us to the peer. Its timestamp is the stream's, from before
// the freeze. The echo is 0, which keeps the peer from measuring a round-trip time
// with it.
func Of(s tcp.Stream, seq uint32, flags byte, data []byte) Segment {
	return Segment{
		Tuple: s.Tuple, Seq: seq, Ack: s.RcvNxt, Flags: flags, Window: s.Window,
		Timestamps: s.Timestamps, Timestamp: s.Timestamp, Data: data,
	}
}

// ACK builds a pure ACK of what we have received. Its sequence number is the next
// one that we would use, so that the peer finds it in order.
func ACK(s tcp.Stream) []byte { return Of(s, s.SndNxt, FlagACK, nil).Packet() }

// Unacked builds the first unacknowledged segments of a stream again, at most n.
func Unacked(s tcp.Stream, n int) [][]byte {
	size := s.MSS
	if s.Timestamps {
		size -= TimestampsLen
	}
	if size <= 0 {
		return nil
	}
	var all [][]byte
	data, seq := s.Unacked, s.SndUna
	for len(data) > 0 && len(all) < n {
		part := data[:min(size, len(data))]
		all = append(all, Of(s, seq, FlagACK|FlagPSH, part).Packet())
		data, seq = data[len(part):], seq+uint32(len(part)) // modulo 2^32
	}
	return all
}

// Packet builds the IP packet that carries the segment.
func (s Segment) Packet() []byte {
	size := TCPLen
	if s.Timestamps {
		size += TimestampsLen
	}
	b := make([]byte, size, size+len(s.Data))
	binary.BigEndian.PutUint16(b[0:], s.Local.Port())
	binary.BigEndian.PutUint16(b[2:], s.Remote.Port())
	binary.BigEndian.PutUint32(b[4:], s.Seq)
	binary.BigEndian.PutUint32(b[8:], s.Ack)
	b[12], b[13] = byte(size/4)<<4, s.Flags
	binary.BigEndian.PutUint16(b[14:], s.Window)
	if s.Timestamps {
		copy(b[TCPLen:], []byte{optNOP, optNOP, optTimestamps, optTimestampsLen})
		binary.BigEndian.PutUint32(b[TCPLen+4:], s.Timestamp)
		binary.BigEndian.PutUint32(b[TCPLen+8:], s.Echo)
	}
	b = append(b, s.Data...)
	sum := Checksum(Pseudo(s.Local.Addr(), s.Remote.Addr(), TCP, len(b)), b)
	binary.BigEndian.PutUint16(b[16:], sum)
	return IP(s.Local.Addr(), s.Remote.Addr(), TCP, b)
}

// Unreachable builds an ICMP error from us to one end of the connection. It quotes
// the segment whose first byte is seq, on its way from one end to the other. For
// IPv4 it says host unreachable, for IPv6 no route: the codes that RFC 6069 names.
func Unreachable(to, us netip.Addr, from, dest netip.AddrPort, seq uint32) []byte {
	quoted := make([]byte, TCPLen) // its first 8 bytes, ports and sequence number, identify it
	binary.BigEndian.PutUint16(quoted[0:], from.Port())
	binary.BigEndian.PutUint16(quoted[2:], dest.Port())
	binary.BigEndian.PutUint32(quoted[4:], seq)
	if from.Addr().Is4() {
		b := append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, IP(from.Addr(), dest.Addr(), TCP, quoted[:8])...)
		binary.BigEndian.PutUint16(b[2:], Checksum(0, b))
		return IP(us, to, ICMP, b)
	}
	quoted[12] = TCPLen / 4 << 4 // the whole header: RFC 4443 asks for as much as fits
	b := append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, IP(from.Addr(), dest.Addr(), TCP, quoted)...)
	binary.BigEndian.PutUint16(b[2:], Checksum(Pseudo(us, to, ICMPv6, len(b)), b))
	return IP(us, to, ICMPv6, b)
}

// IP puts an IP header before a payload.
func IP(from, to netip.Addr, proto byte, payload []byte) []byte {
	if from.Is4() {
		b := make([]byte, ip4Len, ip4Len+len(payload))
		b[0] = 4<<4 | ip4Len/4
		binary.BigEndian.PutUint16(b[2:], uint16(ip4Len+len(payload))) // at most an MSS
		b[6] = 0x40                                                    // do not fragment
		b[8], b[9] = hops, proto
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		binary.BigEndian.PutUint16(b[10:], Checksum(0, b))
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

// Pseudo sums the pseudo header of TCP and ICMPv6 (RFC 9293, section 3.1, and
// RFC 8200, section 8.1).
func Pseudo(from, to netip.Addr, proto byte, length int) uint32 {
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

// Checksum is the Internet checksum (RFC 1071) over b, continued from start.
func Checksum(start uint32, b []byte) uint16 {
	s := sum(start, b)
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s) // folded
}
