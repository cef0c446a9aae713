// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
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
		socket, err = packets()
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

// packets opens a socket that reads the IP packets of all interfaces of the calling
// thread's namespace, before any packet filter sees them.
func packets() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(bigEndian(unix.ETH_P_ALL)))
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "packets"), nil
}

// bigEndian returns n in the network's byte order.
func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }

// hear notes what an IP packet retransmits. It may be cut off after the headers, and
// need not be one of ours.
func (o Oldest) hear(packet []byte) {
	from, to, segment, size, ok := parseIP(packet)
	if !ok || len(segment) < tcpLen {
		return
	}
	header := int(segment[12]>>4) * 4
	const flagSYN = 0x02
	if header < tcpLen || size <= header || segment[13]&flagSYN != 0 {
		return // without data
	}
	seq := binary.BigEndian.Uint32(segment[4:])
	t := tcp.Tuple{
		Local:  netip.AddrPortFrom(to, binary.BigEndian.Uint16(segment[2:])),
		Remote: netip.AddrPortFrom(from, binary.BigEndian.Uint16(segment[0:])),
	}
	before, known := o[t]
	if !known && len(o) == maxHeard || known && int32(seq-before) >= 0 {
		return
	}
	o[t] = seq
}

// parseIP returns the ends of a packet that carries TCP, as much of the segment as
// there is, and its whole size in bytes. IPv6's extension headers are not followed:
// hosts put none before TCP.
func parseIP(p []byte) (from, to netip.Addr, segment []byte, size int, ok bool) {
	switch {
	case len(p) >= ip4Len && p[0]>>4 == 4:
		header := int(p[0]&0xf) * 4
		if p[9] != protoTCP || header < ip4Len || len(p) < header || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
			return from, to, nil, 0, false // the latter is a fragment, but not the first
		}
		return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[header:],
			int(binary.BigEndian.Uint16(p[2:])) - header, true
	case len(p) >= ip6Len && p[0]>>4 == 6 && p[6] == protoTCP:
		return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), p[ip6Len:],
			int(binary.BigEndian.Uint16(p[4:])), true
	}
	return from, to, nil, 0, false
}
