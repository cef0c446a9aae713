// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
)

// Retransmit sends the first unacknowledged segment again of those connections
// whose peer was not reached by the packets of [Plan] (it may be frozen itself,
// or be restored a moment later). It does so at growing intervals, until the
// segment is acknowledged or the connection has had limit packets, the ones of
// Plan included, which must have had the same limit. By then the kernel's own
// timer has taken over. It returns how many packets it sent.
func (s *Sender) Retransmit(ns *netns.Namespace, streams []tcp.Stream, limit int) (sent int, err error) {
	r := retransmission{
		progress: func(conns []tcp.Tuple) (map[tcp.Tuple]tcp.Progress, error) {
			return netns.In(ns, func() (map[tcp.Tuple]tcp.Progress, error) { return tcp.ListProgress(conns) })
		},
		send:  func(packets [][]byte) error { return s.Send(packets, 0) },
		sleep: time.Sleep,
	}
	return r.run(streams, limit)
}

// retransmission holds what a retransmission needs from outside, so that tests can
// replace it.
type retransmission struct {
	progress func(conns []tcp.Tuple) (map[tcp.Tuple]tcp.Progress, error) // as tcp.ListProgress
	send     func(packets [][]byte) error
	sleep    func(time.Duration)
}

// unreached is a connection with data that the peer has not acknowledged.
type unreached struct {
	tcp.Stream
	left int // packets that it may still be sent
}

func (r retransmission) run(streams []tcp.Stream, limit int) (sent int, err error) {
	const first = 20 * time.Millisecond
	var open []unreached
	for _, s := range streams {
		if len(s.Unacked) == 0 {
			continue
		}
		if left := limit - len(toPeer(s, limit)); left > 0 {
			open = append(open, unreached{s, left})
		}
	}
	for wait := first; len(open) > 0; wait *= 2 {
		r.sleep(wait)
		progress, err := r.progress(tuples(open))
		if err != nil {
			return sent, err
		}
		var packets [][]byte
		packets, open = missing(open, progress)
		sent += len(packets)
		if err := r.send(packets); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// tuples returns the names of the connections.
func tuples(streams []unreached) []tcp.Tuple {
	all := make([]tcp.Tuple, len(streams))
	for i, s := range streams {
		all[i] = s.Tuple
	}
	return all
}

// missing returns one segment for each connection whose old data is not yet
// acknowledged, and those of the connections that may be sent more.
func missing(streams []unreached, progress map[tcp.Tuple]tcp.Progress) (packets [][]byte, open []unreached) {
	for _, s := range streams {
		p := progress[s.Tuple]
		n := p.Acked
		if !p.Waits || n >= uint64(len(s.Unacked)) {
			continue
		}
		rest := s.Stream
		rest.Unacked = s.Unacked[n:]
		rest.SndUna += uint32(n) // less than a queue's length
		packets = append(packets, wire.Unacked(rest, 1)...)
		if s.left--; s.left > 0 {
			open = append(open, s)
		}
	}
	return packets, open
}
