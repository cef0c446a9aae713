// SPDX-License-Identifier: Apache-2.0

package quiet

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
)

// ears hear what leaves a namespace, behind its packet filter.
type ears struct {
	tap  *os.File
	done chan struct{}

	mu    sync.Mutex // for the peers' told, acked and next
	peers map[tcp.Tuple]*peer
}

// listen begins to note what the connections tell their peers.
func listen(ns *netns.Namespace, peers map[tcp.Tuple]*peer) (*ears, error) {
	e := &ears{done: make(chan struct{}), peers: make(map[tcp.Tuple]*peer, len(peers))}
	ports := make([]uint16, 0, len(peers))
	for t, p := range peers {
		e.peers[t] = p
		ports = append(ports, t.Local.Port())
	}
	err := ns.Do(func() (err error) {
		e.tap, err = wire.TapPorts(wire.Leaving, ports)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen to what leaves %s: %w", ns, err)
	}
	go e.run()
	return e, nil
}

// close stops listening. The socket itself is closed by the way: the kernel waits until
// no processor can be using it any more (packet_release in net/packet/af_packet.c), which
// takes some 10 ms, and CRIU would wait too.
func (e *ears) close() {
	_ = e.tap.SetReadDeadline(time.Now())
	<-e.done
	go func() { _ = e.tap.Close() }()
}

// run listens until the deadline. What it does not hear counts as not said.
func (e *ears) run() {
	defer close(e.done)
	headers := make([]byte, 128) // of IP and TCP, with options
	for {
		n, err := e.tap.Read(headers)
		switch {
		case errors.Is(err, unix.ENETDOWN): // one interface of several
		case err != nil:
			return
		default:
			e.hear(headers[:n], time.Now())
		}
	}
}

// hear notes it if a packet tells a peer of a window of 0.
func (e *ears) hear(packet []byte, now time.Time) {
	s, _, ok := wire.Parse(packet)
	if !ok || s.Flags&(wire.FlagACK|wire.FlagSYN|wire.FlagRST) != wire.FlagACK || s.Window != 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peers[s.Tuple]
	switch {
	case p == nil:
		return
	case p.told.IsZero():
		p.told = now
	case int32(s.Ack-p.acked) < 0: // modulo 2^32
		return
	}
	p.acked, p.next = s.Ack, s.Seq
}
