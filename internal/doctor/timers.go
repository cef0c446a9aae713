// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

// limit is a time after which a connection ends by itself, and the socket that has the
// shortest one of its kind.
type limit struct {
	after time.Duration
	at    string
	count int
}

func (l *limit) add(after time.Duration, at string) {
	l.count++
	if l.count == 1 || after < l.after {
		l.after, l.at = after, at
	}
}

// checkTimers looks for connections whose own timers are shorter than the time for which
// they may stay frozen. The peers' timers cannot be seen from here.
func checkTimers(s *Subject) (found []Finding) {
	var user, alive limit
	conns := 0
	_ = s.eachSocket(func(d descriptor, fd int, k kind) {
		if k.protocol != unix.IPPROTO_TCP || k.domain == unix.AF_UNIX {
			return
		}
		sa, err := unix.Getpeername(fd)
		if err != nil {
			return // it is not connected
		}
		conns++
		at := fmt.Sprintf("%s, to %s", s.at(d), peer(sa))
		if ms, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err == nil && ms > 0 {
			user.add(time.Duration(ms)*time.Millisecond, at)
		}
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); err == nil && on != 0 {
			alive.add(keepalive(fd), at)
		}
	}) // what could not be looked at is named by checkSockets
	ttl := s.set.TTL
	if user.count > 0 && user.after < ttl {
		found = append(found, warn(user.at, "keep the outage shorter, or raise TCP_USER_TIMEOUT in the program",
			"%d connections have a TCP_USER_TIMEOUT, the shortest of %s: what is unacknowledged for longer ends the connection, and a freeze may last %s", user.count, config.FormatDuration(user.after), config.FormatDuration(ttl)))
	}
	if alive.count > 0 && alive.after < ttl {
		found = append(found, note(alive.at, "keep the outage shorter",
			"%d connections have keepalive, the shortest gives up after %s: a peer with the same setting ends the connection in a longer outage", alive.count, config.FormatDuration(alive.after)))
	}
	if len(found) == 0 {
		return []Finding{ok("timers", "%d connections, none with a timer of its own shorter than the ttl of %s", conns, config.FormatDuration(ttl))}
	}
	return found
}

// keepalive returns after which silence a connection ends (tcp(7)).
func keepalive(fd int) time.Duration {
	get := func(option int) time.Duration {
		v, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, option) // 0 where it cannot be told
		return time.Duration(v)
	}
	return (get(unix.TCP_KEEPIDLE) + get(unix.TCP_KEEPINTVL)*get(unix.TCP_KEEPCNT)) * time.Second
}

func peer(sa unix.Sockaddr) string {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return hostPort(a.Addr[:], a.Port)
	case *unix.SockaddrInet6:
		return hostPort(a.Addr[:], a.Port)
	}
	return "an unknown peer"
}
