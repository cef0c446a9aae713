// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Kinds of TCP options, and the length of the one that is read (RFC 9293, section 3.1,
// and RFC 7323, section 3.2).
const (
	optEnd           = 0
	optNOP           = 1
	optTimestamps    = 8
	optTimestampsLen = 10
)

// Parse reads an IP packet that carries TCP; ok is false if it carries something else.
// The packet may be cut off after the headers: Data is nil, and size is how many bytes
// of data the packet had.
func Parse(packet []byte) (s Segment, size int, ok bool) {
	from, to, b, size, ok := parseIP(packet)
	if !ok || len(b) < TCPLen {
		return s, 0, false
	}
	header := int(b[12]>>4) * 4
	if header < TCPLen || size < header {
		return s, 0, false
	}
	s.Tuple = tcp.Tuple{
		Local:  netip.AddrPortFrom(from, binary.BigEndian.Uint16(b[0:])),
		Remote: netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:])),
	}
	s.Seq, s.Ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	s.Flags, s.Window = b[13], binary.BigEndian.Uint16(b[14:])
	s.timestamps(b[TCPLen:min(header, len(b))])
	return s, size - header, true
}

// timestamps reads the timestamps among the options, if they are there.
func (s *Segment) timestamps(options []byte) {
	for len(options) > 0 && options[0] != optEnd {
		if options[0] == optNOP {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return
		}
		n := int(options[1])
		if options[0] == optTimestamps && n == optTimestampsLen {
			s.Timestamps = true
			s.Timestamp, s.Echo = binary.BigEndian.Uint32(options[2:]), binary.BigEndian.Uint32(options[6:])
		}
		options = options[n:]
	}
}

// parseIP returns the ends of a packet that carries TCP, as much of the segment as
// there is, and its whole size in bytes. IPv6's extension headers are not followed:
// hosts put none before TCP.
func parseIP(p []byte) (from, to netip.Addr, segment []byte, size int, ok bool) {
	switch {
	case len(p) >= ip4Len && p[0]>>4 == 4:
		header := int(p[0]&0xf) * 4
		if p[9] != TCP || header < ip4Len || len(p) < header || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
			return from, to, nil, 0, false // the latter is a fragment, but not the first
		}
		return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[header:],
			int(binary.BigEndian.Uint16(p[2:])) - header, true
	case len(p) >= ip6Len && p[0]>>4 == 6 && p[6] == TCP:
		return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), p[ip6Len:],
			int(binary.BigEndian.Uint16(p[4:])), true
	}
	return from, to, nil, 0, false
}
