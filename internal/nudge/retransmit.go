package nudge

import (
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Errors is how many ICMP errors one peer gets: each halves the time that it
// still wants to wait, so that six leave one peer in 64 waiting at all.
const Errors = 6

// Again repeats the first unacknowledged segment of connections whose peer was
// not reached by the first nudge (it may be frozen itself, or restored a moment
// later), at growing intervals, until it is acknowledged or the budget of
// packets per connection is spent. By then the kernel's own timer has taken
// over. It returns how many packets it sent.
func (l *Line) Again(ns *netns.Namespace, streams []tcp.Stream, budget int) (sent int, err error) {
	const first = 20 * time.Millisecond
	var open []tcp.Stream
	for _, s := range streams {
		if len(s.Unacked) > 0 {
			open = append(open, s)
		}
	}
	for wait := first; len(open) > 0 && budget > 0; wait, budget = 2*wait, budget-1 {
		time.Sleep(wait)
		var acked map[tcp.Tuple]uint64
		err = ns.Do(func() (err error) {
			acked, err = tcp.Acked()
			return err
		})
		if err != nil {
			return sent, err
		}
		var packets [][]byte
		packets, open = missing(open, acked)
		sent += len(packets)
		if err = l.Send(packets, 0); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// missing returns one segment for each connection whose old data is not
// acknowledged yet, and these connections.
func missing(streams []tcp.Stream, acked map[tcp.Tuple]uint64) (packets [][]byte, open []tcp.Stream) {
	for _, s := range streams {
		n, waiting := acked[s.Tuple]
		if !waiting || n >= uint64(len(s.Unacked)) {
			continue
		}
		rest := s
		rest.Unacked = s.Unacked[n:]
		rest.SndUna += uint32(n) //nolint:gosec // less than a queue's length
		packets = append(packets, repeats(rest, 1)...)
		open = append(open, s)
	}
	return packets, open
}
