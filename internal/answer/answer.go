// SPDX-License-Identifier: Apache-2.0

// Package answer keeps the peers of frozen connections from giving up. A freeze drops
// what they send, and Linux ends a connection after some 15 minutes without an answer
// (tcp_retries2), others sooner. So they are answered on behalf of the frozen sockets: by
// an empty acknowledgement that says that nothing new has been received, and that there
// is no room for more (window 0).
//
// That is what a peer hears from a program that does not read for a while, which TCP
// keeps open for as long as the other end answers (RFC 9293, section 3.8.6.1). Linux
// probes a closed window, at most two minutes apart, and counts only what was not
// answered (tcp_probe_timer and, for data that is in flight already, tcp_retransmit_timer
// with tcp_rtx_probe0_timed_out in net/ipv4/tcp_timer.c). Keep-alives are answered the
// same way.
//
// Nothing here can do harm to what is in the images: what is acknowledged is in them, the
// sequence numbers are those at which both ends go on, and there is never data, SYN, FIN
// or RST. But an answer that comes after the thaw would close the window again that the
// thaw has opened, so each one goes through a gate: see [Table.Run].
package answer

import (
	"slices"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
)

// interval is how long a connection waits after one answer until it gets another. No
// peer repeats itself sooner than after 200 ms (TCP_RTO_MIN in include/net/tcp.h), and of
// what it sends in one go one answer closes its window.
const interval = 100 * time.Millisecond

// perSecond is how many answers all connections of a Table get together in a second, and
// how many at most at once. Ten thousand peers whose timers have backed off to two minutes
// ask 80 times a second.
const perSecond = 1000

// Table answers for a set of connections, each as it stood when it was dumped. It is not
// for concurrent use.
type Table struct {
	conns map[tcp.Tuple]*conn
	rate  bucket
}

// conn is what an answer says, in sequence numbers modulo 2^32.
type conn struct {
	sndNxt, rcvNxt uint32
	timestamp      uint32 // in our clock, when it was dumped
	timestamps     bool   // RFC 7323 timestamps are in use
	answered       time.Time
}

// New returns a Table for those of the streams that have a peer to be answered.
func New(streams []tcp.Stream) *Table {
	t := &Table{conns: map[tcp.Tuple]*conn{}, rate: bucket{perSecond: perSecond}}
	for _, s := range streams {
		if s.CanAck() {
			t.conns[s.Tuple] = &conn{sndNxt: s.SndNxt, rcvNxt: s.RcvNxt, timestamp: s.Timestamp, timestamps: s.Timestamps}
		}
	}
	return t
}

// Len returns how many connections the table answers for.
func (t *Table) Len() int { return len(t.conns) }

// Ports returns the connections' local ports, each once, sorted.
func (t *Table) Ports() []uint16 {
	var ports []uint16
	for c := range t.conns {
		ports = append(ports, c.Local.Port())
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// Reply returns the answer to an IP packet that has arrived at a moment. It may be cut
// off after the headers, and need not be one of ours: ok is false where there is nothing
// to say, or where as much has been said as may be. It is to be called in the order of the
// moments.
func (t *Table) Reply(packet []byte, now time.Time) (answer []byte, ok bool) {
	s, size, ok := wire.Parse(packet)
	if !ok {
		return nil, false
	}
	tuple := s.Reverse()
	c := t.conns[tuple]
	if c == nil || !c.asked(s, size) || now.Sub(c.answered) < interval || !t.rate.take(now) {
		return nil, false
	}
	c.answered = now
	a := wire.Segment{
		Tuple: tuple, Seq: c.sndNxt, Ack: c.rcvNxt, Flags: wire.FlagACK,
		Timestamps: c.timestamps, Timestamp: c.timestamp,
	}
	if c.timestamps && s.Timestamps {
		a.Echo = s.Timestamp
	}
	return a.Packet(), true
}

// asked reports whether a segment with size bytes of data is one that the peer expects an
// answer to: it has data or a FIN, or repeats a sequence number from before, as probes
// and keep-alives do. An acknowledgement of our own answer is none of these, so that two
// ends never answer each other's answers.
func (c *conn) asked(s wire.Segment, size int) bool {
	if s.Flags&(wire.FlagSYN|wire.FlagRST) != 0 {
		return false
	}
	return size > 0 || s.Flags&wire.FlagFIN != 0 || int32(s.Seq-c.rcvNxt) < 0 // modulo 2^32
}

// bucket is a token bucket: it holds as many tokens as come in a second, and is full at
// first.
type bucket struct {
	perSecond float64
	missing   float64   // tokens, up to perSecond
	filled    time.Time // when missing was right
}

// take takes a token, if there is one.
func (b *bucket) take(now time.Time) bool {
	b.missing = max(0, b.missing-max(0, now.Sub(b.filled).Seconds())*b.perSecond)
	b.filled = now
	if b.missing+1 > b.perSecond {
		return false
	}
	b.missing++
	return true
}
