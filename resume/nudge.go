package resume

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/netns"
	"github.com/criu-netfreeze/criu-netfreeze/tcp"
)

// maxRepeats is how many segments are repeated at most: TCP's initial window
// would allow ten (RFC 6928); the first is what matters.
const maxRepeats = 4

// Packets returns what to send for one connection, in order, at most limit
// packets. Where we have received more than we had acknowledged the peer has
// most likely that acknowledgement, so it gets the errors for that first: once
// it hears of more, it takes no error until it has waited for its timer again
// (icsk_retransmits is 0 then).
func Packets(s tcp.Stream, limit int) [][]byte {
	var all [][]byte
	switch s.State {
	case tcp.Established, tcp.CloseWait, tcp.FinWait1, tcp.FinWait2, tcp.Closing, tcp.LastAck:
	default:
		return nil // nothing was ever acknowledged, or nobody is there
	}
	errors := func(seq uint32) {
		for range min(Errors, limit-len(all)) {
			all = append(all, unreachable(s.Remote.Addr(), s.Local.Addr(), s.Remote, s.Local, seq))
		}
	}
	rest := 1 // for the ACK, without which nothing is certain
	if s.RcvAcked != s.RcvNxt && limit > Errors+rest {
		errors(s.RcvAcked)
	}
	var data [][]byte
	if s.State == tcp.Established || s.State == tcp.CloseWait {
		data = repeats(s, min(maxRepeats, limit-len(all)))
	}
	if len(data) == 0 {
		data = [][]byte{ack(s)}
	}
	all = append(all, data...)
	errors(s.RcvNxt)
	return all
}

// Own returns the errors that make our own kernel take back its backoff and
// repeat what it has not seen acknowledged. They never leave the namespace.
func Own(s tcp.Stream, limit int) [][]byte {
	var all [][]byte
	if s.SndUna == s.SndNxt {
		return nil
	}
	us := s.Local.Addr()
	for range limit {
		all = append(all, unreachable(us, us, s.Local, s.Remote, s.SndUna))
	}
	return all
}

// Send sends packets that Packets or Own built from within a namespace. What
// the kernel refuses (no route, say) is counted and reported once; nothing
// depends on a nudge.
func Send(ns *netns.Namespace, packets [][]byte) error {
	if len(packets) == 0 {
		return nil
	}
	return ns.Do(func() error {
		out, err := openRaw()
		if err != nil {
			return err
		}
		defer out.close()
		failed := 0
		var last error
		for _, p := range packets {
			if err := out.send(p); err != nil {
				failed++
				last = err
			}
		}
		if failed > 0 {
			return fmt.Errorf("%d of %d packets could not be sent: %w", failed, len(packets), last)
		}
		return nil
	})
}

// raw sends whole IP packets of both families.
type raw struct{ fd4, fd6 int }

func openRaw() (*raw, error) {
	r := &raw{fd6: -1}
	var err error
	if r.fd4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
		return nil, fmt.Errorf("open a raw socket: %w", err)
	}
	r.fd6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return r, nil
	}
	if err == nil {
		err = unix.SetsockoptInt(r.fd6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1)
	}
	if err != nil {
		r.close()
		return nil, fmt.Errorf("open a raw IPv6 socket: %w", err)
	}
	return r, nil
}

func (r *raw) close() {
	_ = unix.Close(r.fd4)
	if r.fd6 >= 0 {
		_ = unix.Close(r.fd6)
	}
}

// send sends one packet to where its header says, without waiting.
func (r *raw) send(p []byte) error {
	if p[0]>>4 == 4 {
		to := netip.AddrFrom4([4]byte(p[16:20]))
		return unix.Sendto(r.fd4, p, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.As4()})
	}
	if r.fd6 < 0 {
		return unix.EAFNOSUPPORT
	}
	return unix.Sendto(r.fd6, p, unix.MSG_DONTWAIT, &unix.SockaddrInet6{Addr: [16]byte(p[24:40])})
}
