// SPDX-License-Identifier: Apache-2.0

// Package nudge gets traffic going again at once when a freeze is lifted. Left
// to themselves both sides wait for timers that have backed off meanwhile:
//
//   - A peer with unacknowledged data retransmits it at growing intervals. An
//     ICMP error "host unreachable" that quotes the segment makes it take back
//     one step of that (RFC 6069, tcp_ld_RTO_revert in the kernel), so a few of
//     them make it send now. They must name the oldest byte that the peer has
//     not seen acknowledged, so a pure ACK goes first: what we acknowledged just
//     before the freeze may never have arrived.
//   - Our own unacknowledged data waits for a timer of seconds after a restore.
//     The nudge sends the first of it: the same bytes with the same sequence
//     numbers that the kernel would send.
//   - A new MAC address stays unknown until the neighbours' entries have aged:
//     it is announced (announce.go).
//
// Nothing here can invent data: acknowledgements name what really was received,
// and segments carry what really was queued. ICMP errors are hints that a peer
// may ignore (RFC 5927); one that does not run Linux does, and waits for its timer.
package nudge

import (
	"slices"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
)

const (
	// maxSegments is how many segments are sent again at most. TCP's initial
	// window would allow ten (RFC 6928), but it is the first one that matters.
	maxSegments = 4

	// errorsPerPeer is how many ICMP errors one peer gets. Each halves the time
	// that the peer still wants to wait: after six it waits for a 64th of it.
	errorsPerPeer = 6

	// leading is how many of them come before everything else, where there is room.
	leading = 1

	// urgent is how many packets of each connection are sent before the rest of
	// any connection's: the leading error, the acknowledgement and one error more,
	// which is enough for every other peer (or, if the peer may know of less than was
	// received, two errors about that).
	urgent = leading + 2
)

// Remote returns the connections whose other end is outside the namespace. Those
// within it need no nudge, since both their ends were frozen together. It does
// not change streams.
func Remote(streams []tcp.Stream) []tcp.Stream {
	conns := make([]tcp.Tuple, len(streams))
	for i, s := range streams {
		conns[i] = s.Tuple
	}
	outside := tcp.SetOf(tcp.Outside(conns))
	return slices.DeleteFunc(slices.Clone(streams), func(s tcp.Stream) bool { return !outside.Has(s.Tuple) })
}

// Plan returns the packets that nudge the connections, in the order in which
// [Sender.Send] is to send them: at most limit for each connection's peer. What
// they leave of the limit is for [Sender.Retransmit]. If backed is set, our own
// kernel has backed off too and is to retransmit what it has sent: then there
// are a few more packets for each connection, which stay within the namespace.
func Plan(streams []tcp.Stream, limit int, backed bool) [][]byte {
	var first, rest [][]byte
	for _, s := range streams {
		packets := toPeer(s, limit)
		if backed {
			packets = append(packets, toOwnKernel(s, errorsPerPeer)...)
		}
		n := min(urgent, len(packets))
		first, rest = append(first, packets[:n]...), append(rest, packets[n:]...)
	}
	return append(first, rest...)
}

// toPeer returns what to send for one connection, in order, at most limit
// packets. If we have received more than the last acknowledgement that we know
// of covers, then most likely the peer has received no later one, so the errors
// that quote that come first: once the peer hears of more, it accepts no error
// until its timer has expired again (icsk_retransmits is 0 then).
//
// Before anything that opens its window the peer gets errors, all of them where we do not
// open it: it may have retransmitted for longer than it may, which Linux overlooks only
// as long as the window is closed (package answer, InFlight).
func toPeer(s tcp.Stream, limit int) [][]byte {
	if !s.CanAck() {
		return nil
	}
	var all [][]byte
	addErrors := func(seq uint32) { all = append(all, errorsAbout(s, seq, limit-len(all))...) }
	const ackLen = 1 // one packet is for the ACK, without which nothing is certain
	if s.Window == 0 {
		all = append(all, errorsAbout(s, s.RcvNxt, limit-ackLen)...)
	} else {
		if limit > leading+ackLen+errorsPerPeer {
			all = append(all, errorsAbout(s, s.RcvNxt, leading)...)
		}
		if s.RcvAcked != s.RcvNxt && limit > errorsPerPeer+ackLen+len(all) {
			addErrors(s.RcvAcked)
		}
	}
	// The peer may have our data already, and have lost only its acknowledgement: then it
	// heeds no window in a segment that repeats it, but that of a pure ACK, which comes after
	// all that was sent.
	if room := limit - len(all); room > ackLen || len(s.Unacked) == 0 {
		all = append(all, wire.ACK(s))
	}
	if s.State == tcp.Established || s.State == tcp.CloseWait {
		all = append(all, wire.Unacked(s, min(maxSegments, limit-len(all)))...)
	}
	addErrors(s.RcvNxt)
	return all
}

// toOwnKernel returns n errors that make our own kernel take back its backoff and
// retransmit, or none if nothing is unacknowledged. They never leave the namespace.
func toOwnKernel(s tcp.Stream, n int) [][]byte {
	if s.SndUna == s.SndNxt {
		return nil
	}
	var all [][]byte
	us := s.Local.Addr()
	for range n {
		all = append(all, wire.Unreachable(us, us, s.Local, s.Remote, s.SndUna))
	}
	return all
}

// errorsAbout returns errors for the peer about the segment that begins with seq, at
// most limit.
func errorsAbout(s tcp.Stream, seq uint32, limit int) (all [][]byte) {
	for range min(errorsPerPeer, limit) {
		all = append(all, wire.Unreachable(s.Remote.Addr(), s.Local.Addr(), s.Remote, s.Local, seq))
	}
	return all
}

// Acks returns, for each connection, an ACK of all that has been received. If the
// peer was heard to wait for less, errors about that come first, at most limit
// packets in all. Until its timer expires once more it heeds no others (see toPeer),
// and it may have backed off far: with these that takes one time-out, as if it had
// begun to wait now.
//
// That matters where the ACK ends within a segment. Small segments become a larger
// one when they are retransmitted (tcp_retrans_try_collapse in net/ipv4/tcp_output.c),
// and while none is acknowledged wholly the peer leaves its timer as it was.
func Acks(streams []tcp.Stream, heard Oldest, limit int) [][]byte {
	var all [][]byte
	for _, s := range streams {
		if !s.CanAck() {
			continue
		}
		if seq, ok := heard[s.Tuple]; ok && int32(s.RcvNxt-seq) > 0 {
			all = append(all, errorsAbout(s, seq, limit-1)...)
		}
		all = append(all, wire.ACK(s))
	}
	return all
}
