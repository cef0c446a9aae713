// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/criu-netfreeze/criu-netfreeze/internal/tcp"

// Ask builds a segment that makes the kernel that has this connection tell the peer at
// once how it stands: next sequence number, acknowledgement and window. It is a SYN from
// the peer, to be sent to the connection's own address from within its namespace, and
// never leaves that.
//
// In a synchronized state any SYN gets such a challenge ACK, and changes nothing,
// whatever its sequence number (RFC 5961, section 4.2; tcp_validate_incoming in
// net/ipv4/tcp_input.c). Linux answers once in 500 ms per connection
// (tcp_invalid_ratelimit), see [AskAgain].
func Ask(t tcp.Tuple) []byte {
	return Segment{Tuple: t.Reverse(), Flags: FlagSYN}.Packet()
}

// AskAgain is like [Ask], but not limited, for a connection that is known to have
// acknowledged everything before acked. The segment repeats one byte from before that,
// whose content therefore does not matter: the kernel drops it and acknowledges again
// (RFC 9293, section 3.10.7.4; tcp_send_dupack in net/ipv4/tcp_input.c, which limits only
// answers to segments without data).
//
// The byte is the last but one, so that the segment ends before the window and is
// refused before its acknowledgement is looked at. That is of next, the connection's own
// sequence number, since connection tracking wants one that can be (before Linux 6.1 it
// takes the packet for invalid otherwise).
func AskAgain(t tcp.Tuple, acked, next uint32) []byte {
	return Segment{Tuple: t.Reverse(), Seq: acked - 2, Ack: next, Flags: FlagACK, Data: []byte{0}}.Packet()
}
