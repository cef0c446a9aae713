// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// quiet is how long a test waits to be sure that nothing arrives.
const quiet = 300 * time.Millisecond

// serve runs an echo server at addr in ns and returns its address with the port.
func serve(t *testing.T, ns *netns.Namespace, addr string) string {
	t.Helper()
	var l net.Listener
	must(t, ns.Do(func() (err error) {
		// Answers get the mark of the packet that they answer.
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_fwmark_accept", []byte("1"), 0o600); err != nil {
			return err
		}
		l, err = net.Listen("tcp", net.JoinHostPort(addr, "0"))
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				buf := make([]byte, 1)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write(buf); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// link is a TCP connection to an echo server.
type link struct {
	net.Conn
	next byte
}

// dial connects from ns, with a mark if it is not 0, and soon gives up.
func dial(ns *netns.Namespace, addr string, mark int) (*link, error) {
	return dialFor(quiet, ns, addr, mark)
}

func dialFor(timeout time.Duration, ns *netns.Namespace, addr string, mark int) (*link, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		d := net.Dialer{Timeout: timeout, Control: func(_, _ string, raw syscall.RawConn) error {
			if mark == 0 {
				return nil
			}
			var err error
			return errors.Join(raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark)
			}), err)
		}}
		c, err = d.Dial("tcp", addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &link{Conn: c}, nil
}

// mustDial connects where nothing keeps it from connecting but a busy machine.
func mustDial(t *testing.T, ns *netns.Namespace, addr string) *link {
	t.Helper()
	l, err := dialFor(5*quiet, ns, addr, 0)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// passes sends a byte and waits until it and all earlier ones have come back.
func (l *link) passes(t *testing.T) {
	t.Helper()
	l.next++
	_, err := l.Write([]byte{l.next})
	must(t, err)
	must(t, l.SetReadDeadline(time.Now().Add(10*time.Second)))
	buf := make([]byte, 1)
	for buf[0] != l.next {
		if _, err := l.Read(buf); err != nil {
			t.Fatalf("%s: no answer: %v", l.RemoteAddr(), err)
		}
	}
}

// stuck sends a byte and makes sure that it does not come back.
func (l *link) stuck(t *testing.T) {
	t.Helper()
	l.next++
	_, err := l.Write([]byte{l.next})
	must(t, err)
	must(t, l.SetReadDeadline(time.Now().Add(quiet)))
	if n, err := l.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: %d bytes and %v came through a freeze", l.RemoteAddr(), n, err)
	}
}

// watch opens a socket in ns that sees all IP packets that arrive on eth0, apart
// from neighbour discovery, which a freeze lets through.
func watch(t *testing.T, ns *netns.Namespace) *os.File {
	t.Helper()
	var fd int
	must(t, ns.Do(func() (err error) {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: eth0.Index})
	}))
	f := os.NewFile(uintptr(fd), "packets")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// packets returns what the peer of eth0 has sent, once it has been quiet for a while.
func packets(t *testing.T, f *os.File) (seen []string) {
	t.Helper()
	must(t, f.SetReadDeadline(time.Now().Add(quiet)))
	buf := make([]byte, 2048)
	for {
		n, err := f.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return seen
		}
		must(t, err)
		if p := describe(buf[:n]); p != "" {
			seen = append(seen, p)
		}
	}
}

// describe returns the addresses and the protocol of the IP packet in an Ethernet
// frame, or "" if the frame is not to be counted.
func describe(frame []byte) string {
	const etherHeader, ip6Header = 14, 40
	packet := frame[etherHeader:]
	var from, to netip.Addr
	var proto byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		from, to = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
		proto = packet[9]
	case unix.ETH_P_IPV6:
		from, to = netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
		proto = packet[6]
		if packet[6] == unix.IPPROTO_ICMPV6 && (packet[ip6Header] == neighbourSolicitation || packet[ip6Header] == neighbourAdvertisement) {
			return ""
		}
	default:
		return ""
	}
	return fmt.Sprintf("%s->%s protocol %d", from, to, proto)
}
