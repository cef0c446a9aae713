// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Tap opens a socket that reads the IP packets of all interfaces of the calling
// thread's namespace, before any packet filter sees them.
func Tap() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(bigEndian(unix.ETH_P_ALL)))
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}

// bigEndian returns n in the network's byte order.
func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }

// Socket sends whole IP packets from the network namespace in which it was opened,
// whichever thread uses it. It is not for concurrent use.
type Socket struct{ fd4, fd6 int }

// Open returns a Socket in the calling thread's network namespace, to be closed by the
// caller. On a kernel without IPv6 it sends IPv4 only.
func Open() (_ *Socket, err error) {
	s := &Socket{fd4: -1, fd6: -1}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.fd4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
		return nil, fmt.Errorf("open a raw socket: %w", err)
	}
	s.fd6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		s.fd6 = -1
		return s, nil
	}
	if err == nil {
		err = unix.SetsockoptInt(s.fd6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1)
	}
	if err != nil {
		return nil, fmt.Errorf("open a raw IPv6 socket: %w", err)
	}
	return s, nil
}

// Close closes the socket. It may be called on a nil Socket.
func (s *Socket) Close() {
	if s == nil {
		return
	}
	for _, fd := range []*int{&s.fd4, &s.fd6} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// Mark sets the packet mark of everything that is sent from now on.
func (s *Socket) Mark(mark uint32) error {
	for _, fd := range []int{s.fd4, s.fd6} {
		if fd < 0 {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			return fmt.Errorf("set the packet mark: %w", err)
		}
	}
	return nil
}

// Send sends one packet to the destination in its header, without blocking. The error
// is EPERM while a packet filter drops it, and EAFNOSUPPORT where there is no IPv6.
func (s *Socket) Send(p []byte) error {
	if p[0]>>4 == 4 {
		to := netip.AddrFrom4([4]byte(p[16:20]))
		return unix.Sendto(s.fd4, p, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.As4()})
	}
	if s.fd6 < 0 {
		return unix.EAFNOSUPPORT
	}
	return unix.Sendto(s.fd6, p, unix.MSG_DONTWAIT, &unix.SockaddrInet6{Addr: [16]byte(p[24:40])})
}
