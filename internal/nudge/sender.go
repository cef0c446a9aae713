// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
)

// Sender sends packets from within a network namespace without any delay: it has
// sockets open there, which stay in that namespace whichever thread uses them.
// It may announce (FindAddresses, Announce) and send (Send, Retransmit) at the
// same time, but is otherwise not for concurrent use.
type Sender struct {
	ip            *wire.Socket
	link          int     // for whole Ethernet frames
	announcements []frame // found by FindAddresses
	solicitations []frame // for IPv6, sent by ProbeNeighbors
}

// frame is an Ethernet frame and the interface that it leaves by.
type frame struct {
	index int
	data  []byte
}

// Open returns a Sender in ns, to be closed by the caller. On a kernel without
// IPv6 it sends IPv4 only.
func Open(ns *netns.Namespace) (*Sender, error) {
	s := &Sender{link: -1}
	if err := ns.Do(s.open); err != nil {
		s.Close()
		return nil, fmt.Errorf("prepare to send from %s: %w", ns, err)
	}
	return s, nil
}

// FindAddresses looks up the addresses that ns has now, for [Sender.Announce].
func (s *Sender) FindAddresses(ns *netns.Namespace) error {
	return ns.Do(func() (err error) {
		s.announcements, err = announcements()
		return err
	})
}

func (s *Sender) open() (err error) {
	if s.ip, err = wire.Open(); err != nil {
		return err
	}
	if s.link, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	return nil
}

// Close closes the sockets. It may be called on a nil Sender.
func (s *Sender) Close() {
	if s == nil {
		return
	}
	s.ip.Close()
	if s.link >= 0 {
		_ = unix.Close(s.link)
		s.link = -1
	}
}

// Mark sets the packet mark of everything that is sent from now on, except
// announcements and solicitations.
func (s *Sender) Mark(mark uint32) error { return s.ip.Mark(mark) }

// Announce tells the neighbors the MAC addresses of all addresses that the last
// FindAddresses found: by gratuitous ARP requests (RFC 5227, section 3) and
// unsolicited neighbor advertisements with the override flag (RFC 4861, section
// 7.2.6). A freeze lets both through.
func (s *Sender) Announce() error {
	var errs []error
	for _, f := range s.announcements {
		errs = append(errs, s.sendFrame(f))
	}
	return errors.Join(errs...)
}

func (s *Sender) sendFrame(f frame) error {
	return unix.Sendto(s.link, f.data, 0, &unix.SockaddrLinklayer{Ifindex: f.index, Halen: 6})
}

// Send sends packets of [Plan] or [Acks], each IP family's in their order. CRIU
// removes its own network lock only after the action at which we thaw, and until
// then the kernel refuses packets with EPERM: the first packet of each family is
// tried again for at most wait. That lock has also dropped the answers to IPv6
// neighbor solicitations, so those are sent again. Packets that the kernel
// refuses later (for want of a route, say) are skipped, and the error says how
// many they were: nothing depends on a nudge.
func (s *Sender) Send(packets [][]byte, wait time.Duration) error {
	var families [2][][]byte
	for _, p := range packets {
		i := 0
		if p[0]>>4 != 4 {
			i = 1
		}
		families[i] = append(families[i], p)
	}
	var errs [2]error
	var both sync.WaitGroup
	for i, solicitations := range [][]frame{nil, s.solicitations} {
		both.Go(func() { errs[i] = s.sendAll(families[i], solicitations, wait) })
	}
	both.Wait()
	return errors.Join(errs[:]...)
}

// lockPollInterval is how long to wait before trying again whether CRIU's lock is
// gone.
const lockPollInterval = 500 * time.Microsecond

// sendAll sends the packets of one family, and the solicitations as soon as one
// packet was accepted.
func (s *Sender) sendAll(packets [][]byte, solicitations []frame, wait time.Duration) error {
	failed, passed, deadline := 0, false, time.Now().Add(wait)
	var last error
	for _, p := range packets {
		err := s.ip.Send(p)
		for errors.Is(err, unix.EPERM) && !passed && time.Now().Before(deadline) {
			time.Sleep(lockPollInterval)
			err = s.ip.Send(p)
		}
		if err != nil {
			failed++
			last = err
			continue
		}
		if !passed {
			passed = true
			for _, f := range solicitations {
				_ = s.sendFrame(f) // if this fails, the kernel asks a second later
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d packets could not be sent: %w", failed, len(packets), last)
	}
	return nil
}
