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

// ripe is for how long data must have been unanswered before it is answered. Until then
// the peer's timer has expired at least once, mostly (TCP_RTO_MIN is 200 ms), so that it
// has backed off: only then an error of the nudge makes it send at once after the thaw
// (tcp_ld_RTO_revert in net/ipv4/tcp_ipv4.c). While the window is closed its interval
// doubles as well, up to two minutes, but that counts as no backoff. See [Table.InFlight].
const ripe = time.Second

// early is how long after the beginning data is taken for what was under way when the
// freeze came: it has been unanswered for as long as that.
const early = 2 * time.Second

// perSecond is how many answers all connections of a Table get together in a second, and
// how many at most at once. Ten thousand peers whose timers have backed off to two minutes
// ask 80 times a second.
const perSecond = 1000

// Table answers for a set of connections, each as it stood when it was dumped. It is not
// for concurrent use.
type Table struct {
	conns  map[tcp.Tuple]*conn
	rate   bucket
	frozen time.Time // since when nobody answers
	began  time.Time // when the table was made
	flying []tcp.Tuple
}

// conn is what an answer says, in sequence numbers modulo 2^32.
type conn struct {
	sndNxt, rcvNxt uint32
	timestamp      uint32    // in our clock, when it was dumped
	timestamps     bool      // RFC 7323 timestamps are in use
	quiet          bool      // the peer has nothing in flight
	asked          time.Time // since when the peer has data that is not acknowledged; zero if it is not known to have any
	answered       time.Time
}

// New returns a Table for those of the streams that have a peer to be answered, and were
// frozen at a moment. It answers from now on. What comes from the peers of those in quiet is
// a probe: some stacks probe a closed window with the next byte that they have to send.
func New(streams []tcp.Stream, quiet tcp.Set, frozen, now time.Time) *Table {
	t := &Table{conns: map[tcp.Tuple]*conn{}, rate: bucket{perSecond: perSecond}, frozen: frozen, began: now}
	for _, s := range streams {
		if s.CanAck() {
			t.conns[s.Tuple] = &conn{sndNxt: s.SndNxt, rcvNxt: s.RcvNxt, timestamp: s.Timestamp, timestamps: s.Timestamps, quiet: quiet.Has(s.Tuple)}
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

// InFlight returns the connections whose peers have sent data that they retransmit. At
// the thaw these must not hear of an open window until that has arrived: Linux counts the
// time since the first retransmission, ignores it as long as the window is closed, and
// ends the connection if its timer expires afterwards (retransmits_timed_out in
// net/ipv4/tcp_timer.c). With a closed window it retransmits, is acknowledged, and begins
// to count anew.
func (t *Table) InFlight() []tcp.Tuple { return t.flying }

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
	if c == nil || !t.due(c, s, size, now) || now.Sub(c.answered) < interval || !t.rate.take(now) {
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

// due reports whether a segment with size bytes of data is to be answered now. Probes and
// keep-alives, which repeat a sequence number from before, are at once; data and a FIN
// when they are ripe. An acknowledgement of our own answer is none of these, so that two
// ends never answer each other's answers.
func (t *Table) due(c *conn, s wire.Segment, size int, now time.Time) bool {
	if s.Flags&(wire.FlagSYN|wire.FlagRST) != 0 {
		return false
	}
	end := s.Seq + uint32(size) // modulo 2^32
	if s.Flags&wire.FlagFIN != 0 {
		end++
	}
	switch isNew := int32(end-c.rcvNxt) > 0; {
	case !isNew:
		return int32(s.Seq-c.rcvNxt) < 0
	case end == s.Seq:
		return false // an acknowledgement of what was sent last
	}
	if c.quiet {
		return true
	}
	if c.asked.IsZero() {
		if c.asked = now; now.Sub(t.began) < early {
			c.asked = t.frozen
		}
		t.flying = append(t.flying, s.Reverse())
	}
	return now.Sub(c.asked) >= ripe
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
