// SPDX-License-Identifier: Apache-2.0

package quiet

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// mark lets our questions pass rules that hold new connections off, and CRIU's own lock.
const mark = rules.Mark

// pauses are how long to wait between attempts to open a window: CRIU's own lock may
// still be there at the first ones, and packets get lost. In the end the peer's probe
// must have come, which finds the window open (its time-out is 200 ms at least, and
// backs off from there).
var pauses = []time.Duration{
	0, 2 * time.Millisecond, 5 * time.Millisecond, 15 * time.Millisecond,
	50 * time.Millisecond, 150 * time.Millisecond, 500 * time.Millisecond,
}

// Open makes the connections tell their quiet peers how large their windows really are,
// once the rules no longer shut them: at once, and again until a peer has sent something,
// for some 700 ms at most, or until ctx ends. Those that may have been told of a window of
// 0, though it was not heard, are told at the end of that: our own kernel would not answer
// the same question sooner. It returns how many packets it took. Quiet and Has may be called
// at the same time, and say the same as before.
func (p *Peers) Open(ctx context.Context) (sent int, err error) {
	if p == nil || p.sock == nil || len(p.peers)+len(p.unheard) == 0 {
		return 0, nil
	}
	shut, unheard := maps.Clone(p.peers), maps.Clone(p.unheard)
	for _, pause := range pauses {
		if pause > 0 {
			if !sleep(ctx, pause) {
				return sent, nil
			}
			if err := errors.Join(p.dropSending(shut), p.dropSending(unheard)); err != nil {
				return sent, err
			}
		}
		if len(shut)+len(unheard) == 0 {
			return sent, nil
		}
		p.again(shut)
		sent += len(shut)
	}
	p.askOf(unheard)
	return sent + len(unheard), nil
}

// Ask makes connections tell their peers once how large their windows are, where it is not
// known which peers are quiet, or how the connections stand: those of another process.
func Ask(ns *netns.Namespace, conns []tcp.Tuple) error {
	p := &Peers{ns: ns, peers: map[tcp.Tuple]*peer{}}
	defer p.Close()
	conns, err := askable(ns, conns)
	if err != nil {
		return err
	}
	for _, t := range conns {
		p.peers[t] = &peer{}
	}
	if err := p.connect(); err != nil {
		return err
	}
	p.ask()
	return nil
}

// asks are the pauses of [End]: our own kernel answers the same question once in 500 ms.
var asks = []time.Duration{20 * time.Millisecond, 510 * time.Millisecond}

// End repeats [Ask], or whatever else has told the peers of their windows, until they have
// sent something, for half a second at most, or until ctx ends. ns stays open as long. It
// returns how many packets it took.
func End(ctx context.Context, ns *netns.Namespace, conns []tcp.Tuple) (sent int, err error) {
	p := &Peers{ns: ns, peers: map[tcp.Tuple]*peer{}}
	defer p.Close()
	if conns, err = askable(ns, conns); err != nil {
		return 0, err
	}
	before, err := p.progress(conns)
	if err != nil {
		return 0, err
	}
	for _, t := range conns {
		if now, alive := before[t]; alive {
			p.peers[t] = &peer{received: now.Received}
		}
	}
	if err := p.connect(); err != nil {
		return 0, err
	}
	for _, pause := range asks {
		if !sleep(ctx, pause) {
			return sent, nil
		}
		if err := p.dropSending(p.peers); err != nil {
			return sent, err
		}
		p.ask()
		sent += len(p.peers)
	}
	return sent, nil
}

// sleep reports whether ctx has not ended before the pause was over.
func sleep(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// dropSending takes out the peers that send again, and those whose connection has gone.
func (p *Peers) dropSending(peers map[tcp.Tuple]*peer) error {
	if len(peers) == 0 {
		return nil
	}
	progress, err := p.progress(slices.Collect(maps.Keys(peers)))
	if err != nil {
		return err
	}
	for t, peer := range peers {
		if now, alive := progress[t]; !alive || now.Received != peer.received {
			delete(peers, t)
		}
	}
	return nil
}
