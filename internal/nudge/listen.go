// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
)

// Listener hears what the peers of a frozen namespace retransmit: the first byte of
// it is the oldest one that they have not seen acknowledged, which an error that
// makes them send has to name (see the package comment). Nothing else tells it: the
// freeze may have dropped an acknowledgement that the kernel had put off.
type Listener struct {
	stop   context.CancelFunc
	done   chan struct{} // closed when nothing below changes any more
	oldest Oldest
	err    error // why not all was heard
}

// Oldest is the first byte that the peer of each connection, as we see it, waits to
// see acknowledged: a sequence number modulo 2^32.
type Oldest map[tcp.Tuple]uint32

const (
	// quickest is how long after a freeze no peer's retransmission timer has
	// expired, since that is TCP_RTO_MIN at least (200 ms, include/net/tcp.h); less
	// some time to be ready. What comes before is mostly new data on its way.
	quickest = 150 * time.Millisecond

	maxHeard = 1 << 16 // connections that are remembered at most
)

// Listen returns a Listener for ns, which begins to listen only when ns has been
// frozen for so long that peers retransmit: a shorter freeze costs nothing. It is to
// be stopped.
func Listen(ns *netns.Namespace) (*Listener, error) {
	own, err := ns.Clone()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &Listener{stop: stop, done: make(chan struct{}), oldest: Oldest{}}
	go func() {
		defer close(l.done)
		defer own.Close()
		if err := l.run(ctx, own); err != nil {
			l.err = fmt.Errorf("listen to what peers send to %s: %w", own, err)
		}
	}()
	return l, nil
}

// Stop ends listening and returns what was heard, and why that is not all, if so. It
// may be called again, and on a nil Listener, which has heard nothing.
func (l *Listener) Stop() (Oldest, error) {
	if l == nil {
		return nil, nil
	}
	l.stop()
	<-l.done
	return l.oldest, l.err
}

// run listens until ctx ends.
func (l *Listener) run(ctx context.Context, ns *netns.Namespace) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(quickest):
	}
	var socket *os.File
	err := ns.Do(func() (err error) {
		socket, err = wire.Tap()
		return err
	})
	if err != nil {
		return err
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Now()) })()
	headers := make([]byte, 128) // of IP and TCP, with options
	for {
		n, err := socket.Read(headers)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case errors.Is(err, unix.ENETDOWN): // one interface of several
		case err != nil:
			return err
		default:
			l.oldest.hear(headers[:n])
		}
	}
}

// hear notes what an IP packet retransmits. It may be cut off after the headers, and
// need not be one of ours.
func (o Oldest) hear(packet []byte) {
	s, size, ok := wire.Parse(packet)
	if !ok || size == 0 || s.Flags&wire.FlagSYN != 0 {
		return // without data
	}
	t := s.Reverse()
	before, known := o[t]
	if !known && len(o) == maxHeard || known && int32(s.Seq-before) >= 0 {
		return
	}
	o[t] = s.Seq
}
