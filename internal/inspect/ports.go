// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// checkPorts finds TCP ports that are taken. The kernel is asked by binding a socket, as
// CRIU will; since that never listens, nobody can connect to it.
func (c *Checkpoint) checkPorts(ns *netns.Namespace, socks []tcp.Socket, t *Target) error {
	for _, l := range c.Listening {
		if l.Protocol != "tcp" {
			continue // to bind a port of UDP could take somebody's datagrams
		}
		var taken bool
		err := ns.Do(func() (err error) {
			taken, err = l.taken()
			return err
		})
		if err != nil {
			return fmt.Errorf("ask whether the port of the listening socket %s is taken: %w", l.Local, err)
		}
		if taken {
			t.blocks(code.PortTaken, fmt.Sprintf("the port of the listening socket %s is taken%s", l.Local, listener(socks, l.Local.Port())),
				fmt.Sprintf("end the process that has it: there, ss -ltnp sport = :%d names it", l.Local.Port()))
		}
	}
	return nil
}

// listener names a socket that listens on a port.
func listener(socks []tcp.Socket, port uint16) string {
	for _, s := range socks {
		if s.State == tcp.Listen && s.Local.Port() == port {
			return fmt.Sprintf(": a process there listens on %s", s.Local)
		}
	}
	return ""
}

// taken reports whether a socket cannot be bound as l was, in this thread's namespace.
// With SO_REUSEADDR, which CRIU sets until all sockets are bound (criu/sk-inet.c), only
// one that listens, or does not have that option, is in the way. Whether the address is
// there is not asked.
func (l Listener) taken() (bool, error) {
	addr := l.Local.Addr()
	var sa unix.Sockaddr
	family, level, freebind := unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	if addr.Is4() {
		family, level, freebind = unix.AF_INET, unix.IPPROTO_IP, unix.IP_FREEBIND
		sa = &unix.SockaddrInet4{Port: int(l.Local.Port()), Addr: addr.As4()}
	} else {
		sa = &unix.SockaddrInet6{Port: int(l.Local.Port()), Addr: addr.As16()}
	}
	if addr.IsLinkLocalUnicast() {
		return false, nil // it needs an interface to bind, which may be missing
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	options := [][2]int{{unix.SOL_SOCKET, unix.SO_REUSEADDR}, {level, freebind}}
	if l.reusePort {
		options = append(options, [2]int{unix.SOL_SOCKET, unix.SO_REUSEPORT})
	}
	if l.v6only {
		options = append(options, [2]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], 1); err != nil {
			return false, err
		}
	}
	if !l.v6only && !addr.Is4() { // whatever net.ipv6.bindv6only says there
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return false, err
		}
	}
	err = unix.Bind(fd, sa)
	if errors.Is(err, unix.EADDRINUSE) {
		return true, nil
	}
	return false, err
}
