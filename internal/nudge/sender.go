package nudge

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// Line is what it takes to send from within a namespace without a moment's
// delay: open sockets there, and once Look was called the announcements of its
// addresses. A socket stays in the namespace that it was made in, whoever uses
// it.
type Line struct {
	fd4, fd6 int // for whole IP packets
	link     int // for whole Ethernet frames
	news     []frame
	asked    []frame // IPv6 neighbour solicitations of Prime
}

// frame is an Ethernet frame and the interface that it leaves by.
type frame struct {
	index int
	data  []byte
}

// Open opens a Line in ns. A kernel without IPv6 is fine.
func Open(ns *netns.Namespace) (*Line, error) {
	l := &Line{fd4: -1, fd6: -1, link: -1}
	if err := ns.Do(l.open); err != nil {
		l.Close()
		return nil, fmt.Errorf("prepare to send from %s: %w", ns, err)
	}
	return l, nil
}

// Look finds out which addresses the namespace has now, for Announce.
func (l *Line) Look(ns *netns.Namespace) error {
	return ns.Do(func() (err error) {
		l.news, err = announcements()
		return err
	})
}

func (l *Line) open() (err error) {
	if l.fd4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
		return fmt.Errorf("open a raw socket: %w", err)
	}
	if l.link, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	l.fd6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		l.fd6 = -1
		return nil
	}
	if err == nil {
		err = unix.SetsockoptInt(l.fd6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1)
	}
	if err != nil {
		return fmt.Errorf("open a raw IPv6 socket: %w", err)
	}
	return nil
}

// Close closes the sockets. It does nothing to a nil Line.
func (l *Line) Close() {
	if l == nil {
		return
	}
	for _, fd := range []*int{&l.fd4, &l.fd6, &l.link} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// Mark puts a packet mark on what Send sends from now on.
func (l *Line) Mark(mark int) error {
	for _, fd := range []int{l.fd4, l.fd6} {
		if fd < 0 {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
			return fmt.Errorf("set the packet mark: %w", err)
		}
	}
	return nil
}

// Announce tells the neighbours which MAC address every address had that the
// namespace had at the last Look: by a gratuitous ARP request (RFC 5227, section
// 3) and an unsolicited neighbour advertisement with the override flag (RFC 4861,
// section 7.2.6). Both pass a freeze.
func (l *Line) Announce() error {
	var errs []error
	for _, f := range l.news {
		errs = append(errs, l.sendFrame(f))
	}
	return errors.Join(errs...)
}

func (l *Line) sendFrame(f frame) error {
	return unix.Sendto(l.link, f.data, 0, &unix.SockaddrLinklayer{Ifindex: f.index, Halen: 6})
}

// Send sends packets that Packets or Own built, those of each IP family in their
// order. CRIU takes its own network lock away only after the action at which we
// thaw, and until then the kernel refuses packets with EPERM: for at most wait
// the first one of a family is tried again. That lock has dropped the answers to
// IPv6 neighbour solicitations too, so the questions are repeated. What the
// kernel refuses then (no route, say) is counted and reported once; nothing
// depends on a nudge.
func (l *Line) Send(packets [][]byte, wait time.Duration) error {
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
	for i, ask := range [][]frame{nil, l.asked} {
		both.Go(func() { errs[i] = l.sendAll(families[i], ask, wait) })
	}
	both.Wait()
	return errors.Join(errs[:]...)
}

// lockStep is how often is tried whether CRIU's lock is gone.
const lockStep = 500 * time.Microsecond

// sendAll sends the packets of one family, and ask as soon as it can.
func (l *Line) sendAll(packets [][]byte, ask []frame, wait time.Duration) error {
	failed, passed, deadline := 0, false, time.Now().Add(wait)
	var last error
	for _, p := range packets {
		err := l.send(p)
		for errors.Is(err, unix.EPERM) && !passed && time.Now().Before(deadline) {
			time.Sleep(lockStep)
			err = l.send(p)
		}
		if err != nil {
			failed++
			last = err
			continue
		}
		if !passed {
			passed = true
			for _, f := range ask {
				_ = l.sendFrame(f) // the kernel asks a second later
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d packets could not be sent: %w", failed, len(packets), last)
	}
	return nil
}

// send sends one packet to where its header says, without waiting.
func (l *Line) send(p []byte) error {
	if p[0]>>4 == 4 {
		to := netip.AddrFrom4([4]byte(p[16:20]))
		return unix.Sendto(l.fd4, p, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.As4()})
	}
	if l.fd6 < 0 {
		return unix.EAFNOSUPPORT
	}
	return unix.Sendto(l.fd6, p, unix.MSG_DONTWAIT, &unix.SockaddrInet6{Addr: [16]byte(p[24:40])})
}
