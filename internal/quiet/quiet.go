// SPDX-License-Identifier: Apache-2.0

// Package quiet makes the peers of connections stop sending right before a freeze, so
// that nothing of theirs is under way when it comes: nothing is lost in it, and no peer
// waits for a retransmission timer after it. The idea is that of Freeze-TCP (Goff et al.,
// 2000): a receiver that is about to be cut off closes its window. Here the packet filter
// does so, and neither application nor peer is changed.
//
//	shut   all segments that leave offer a window of 0 from now on
//	ask    each connection is made to send one now
//	wait   until nothing has come in for a round trip
//	again  the last that came in is acknowledged at once, not when a timer expires
//
// After that the peers wait for a window, in the persist state (RFC 9293, section
// 3.8.6.1). Whoever ends the freeze has to make the connections say how large theirs is:
// [Peers.Open], or the first segment of a restore.
//
// A connection that does not become quiet in time gets its window back, and its peer hears
// of that. A closed window with data under way is worse than none: Linux gives such a
// connection up after two minutes of silence (tcp_rtx_probe0_timed_out in
// net/ipv4/tcp_timer.c), not after 15.
package quiet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
)

const (
	// margin is what is added to a smoothed round trip, which some exceed a little.
	margin = time.Millisecond

	// answerTime is how long it may take our own kernel to answer. What it does not
	// answer by then it never will: its own packet filter drops the question, or it has
	// answered another one just before.
	answerTime = 10 * time.Millisecond

	// slowest is the part of the time that a round trip may take at most: one for the
	// window to get there and the last data to come, and some for the unforeseen.
	slowest = 2
)

// Peers are the peers of connections that have been made quiet.
type Peers struct {
	ns    *netns.Namespace
	sock  *wire.Socket
	peers map[tcp.Tuple]*peer // the quiet ones

	// unheard are those of which it is not known what they have been told: of many packets
	// at once some are not heard.
	unheard map[tcp.Tuple]*peer

	Slow       int           // how many connections were left alone, since their round trip is too long
	Translated int           // how many were, since their addresses are others outside the namespace
	Loud       int           // how many did not become quiet
	Took       time.Duration // how long it took
}

// peer is the peer of one connection.
type peer struct {
	rtt      time.Duration
	received uint64    // from it, in bytes
	quiet    time.Time // since when nothing has come
	grown    bool      // something has come since the beginning

	told        time.Time // when a segment with a window of 0 was first seen to leave, zero if never
	acked, next uint32    // what the last such segment acknowledged, and its sequence number
}

// Make makes the peers of conns quiet, within limit. The connections are in ns and have
// peers outside of it. shut is to shut the windows of those connections that it is given,
// and of no others. After an error all windows are open again, if that was possible, and
// nothing is held. The caller closes Peers; ns is to stay open until then.
func Make(ns *netns.Namespace, conns []tcp.Tuple, limit time.Duration, shut func([]tcp.Tuple) error) (_ *Peers, err error) {
	began := time.Now()
	p := &Peers{ns: ns, peers: map[tcp.Tuple]*peer{}}
	some, err := askable(ns, conns)
	if err != nil {
		return nil, err
	}
	p.Translated = len(conns) - len(some)
	progress, err := p.progress(some)
	if err != nil {
		return nil, err
	}
	for _, t := range some {
		now, alive := progress[t]
		switch {
		case !alive:
		case now.RTT > limit/slowest:
			p.Slow++
		default:
			p.peers[t] = &peer{rtt: now.RTT, received: now.Received, quiet: began}
		}
	}
	if len(p.peers) == 0 {
		return p, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, shut(nil))
			told, _ := toldOf(p.peers)
			p.again(told)
			p.Close()
		}
	}()
	if err := p.connect(); err != nil {
		return nil, err
	}
	ears, err := listen(ns, p.peers)
	if err != nil {
		return nil, err
	}
	if err = shut(p.tuples()); err == nil {
		err = p.dropGone() // to ask for one that is closed would open another
	}
	if err == nil {
		p.ask()
		err = p.wait(ears, time.Now(), began.Add(limit))
	}
	if ears.close(); err != nil { // nobody else changes the peers from here on
		return nil, err
	}
	if loud := p.dropLoud(); len(loud) > 0 {
		if err := shut(p.tuples()); err != nil {
			return nil, err
		}
		told, unheard := toldOf(loud)
		p.again(told)
		p.Loud, p.unheard = len(loud), unheard
	}
	p.again(p.grown())
	p.Took = time.Since(began)
	return p, nil
}

// Close lets go of what Open needs. The windows stay as they are. It may be called on
// nil Peers.
func (p *Peers) Close() {
	if p != nil {
		p.sock.Close()
		p.sock = nil
	}
}

// Quiet returns how many peers are quiet: they are told of a window of 0. Nil Peers have
// none.
func (p *Peers) Quiet() int {
	if p == nil {
		return 0
	}
	return len(p.peers)
}

// Set returns the connections whose peers are quiet. Nil Peers have none.
func (p *Peers) Set() tcp.Set {
	if p == nil {
		return nil
	}
	return tcp.SetOf(p.tuples())
}

// Has reports whether the peer of this connection is quiet. Nil Peers have none.
func (p *Peers) Has(t tcp.Tuple) bool {
	if p == nil {
		return false
	}
	_, ok := p.peers[t]
	return ok
}

// askable returns those of the connections that can be asked. A question about one whose
// addresses are translated is taken for the beginning of another connection: it comes to
// whoever listens on the same port.
func askable(ns *netns.Namespace, conns []tcp.Tuple) ([]tcp.Tuple, error) {
	translated, err := netns.In(ns, func() ([]tcp.Tuple, error) { return tcp.Translated(conns) })
	return tcp.Without(conns, translated), err
}

// progress returns how far those of the connections have come that are still there.
func (p *Peers) progress(conns []tcp.Tuple) (map[tcp.Tuple]tcp.Progress, error) {
	return netns.In(p.ns, func() (map[tcp.Tuple]tcp.Progress, error) { return tcp.ListProgress(conns) })
}

func (p *Peers) tuples() []tcp.Tuple { return slices.Collect(maps.Keys(p.peers)) }

// connect opens the socket for questions.
func (p *Peers) connect() error {
	err := p.ns.Do(func() (err error) {
		p.sock, err = wire.Open()
		return err
	})
	if err == nil {
		err = p.sock.Mark(mark)
	}
	if err != nil {
		return fmt.Errorf("ask the connections in %s: %w", p.ns, err)
	}
	return nil
}

// ask makes each connection say where it stands. What cannot be sent is not answered.
func (p *Peers) ask() { p.askOf(p.peers) }

func (p *Peers) askOf(peers map[tcp.Tuple]*peer) {
	for t := range peers {
		_ = p.sock.Send(wire.Ask(t))
	}
}

// wait waits until all peers are quiet, but not longer than to the deadline.
func (p *Peers) wait(ears *ears, asked, deadline time.Time) error {
	const step = 500 * time.Microsecond
	for pause := step; ; {
		time.Sleep(pause)
		began := time.Now()
		progress, err := p.progress(p.tuples())
		if err != nil {
			return err
		}
		now := time.Now()
		took := now.Sub(began)
		left, all := p.note(ears, progress, now, now.Sub(asked) < answerTime)
		if all && left <= 0 || now.After(deadline) {
			return nil
		}
		pause = step
		if all { // no later than they may be quiet
			pause = min(step, left)
		}
		pause = max(pause, took) // no more than half of the time
	}
}

// note notes what has come in by now. It reports whether all peers have been told to be
// quiet, apart from those that never will be (patient says that they may still be), and
// how much longer nothing more must come in from them.
func (p *Peers) note(ears *ears, progress map[tcp.Tuple]tcp.Progress, now time.Time, patient bool) (left time.Duration, all bool) {
	ears.mu.Lock()
	defer ears.mu.Unlock()
	all = true
	for t, peer := range p.peers {
		is, alive := progress[t]
		if !alive {
			delete(p.peers, t)
			continue
		}
		if is.Received != peer.received {
			peer.received, peer.quiet, peer.grown = is.Received, now, true
		}
		switch told := !peer.told.IsZero(); {
		case told:
			left = max(left, peer.left(now))
		case patient:
			all = false
		}
	}
	return left, all
}

// left returns how much longer nothing must come in from a peer that has been told to be
// quiet, so that nothing of it can be under way. It is 0 or less for one that is quiet.
func (p *peer) left(now time.Time) time.Duration {
	since := p.quiet
	if p.told.After(since) {
		since = p.told
	}
	return p.rtt + margin - now.Sub(since)
}

// dropGone takes out the connections that are not there any more.
func (p *Peers) dropGone() error {
	progress, err := p.progress(p.tuples())
	maps.DeleteFunc(p.peers, func(t tcp.Tuple, _ *peer) bool {
		_, alive := progress[t]
		return err == nil && !alive
	})
	return err
}

// dropLoud takes out the peers that are not quiet, and returns them.
func (p *Peers) dropLoud() map[tcp.Tuple]*peer {
	now, loud := time.Now(), map[tcp.Tuple]*peer{}
	for t, peer := range p.peers {
		if peer.told.IsZero() || peer.left(now) > 0 {
			delete(p.peers, t)
			loud[t] = peer
		}
	}
	return loud
}

// toldOf tells the peers that have been told of a window of 0 from those of which that is
// not known.
func toldOf(peers map[tcp.Tuple]*peer) (told, unheard map[tcp.Tuple]*peer) {
	told, unheard = map[tcp.Tuple]*peer{}, map[tcp.Tuple]*peer{}
	for t, peer := range peers {
		if peer.told.IsZero() {
			unheard[t] = peer
		} else {
			told[t] = peer
		}
	}
	return told, unheard
}

// grown returns the peers of which something has come since the beginning: the kernel may
// have put its acknowledgement off.
func (p *Peers) grown() map[tcp.Tuple]*peer {
	some := maps.Clone(p.peers)
	maps.DeleteFunc(some, func(_ tcp.Tuple, peer *peer) bool { return !peer.grown })
	return some
}

// again has our own kernel acknowledge once more what it has received from some peers.
func (p *Peers) again(peers map[tcp.Tuple]*peer) {
	for t, peer := range peers {
		_ = p.sock.Send(wire.AskAgain(t, peer.acked, peer.next)) // if it is lost, the peer's probe asks the same
	}
}
