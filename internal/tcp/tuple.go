// Package tcp looks at and changes TCP sockets of other processes: it lists
// a network namespace's connections, switches TCP_REPAIR on duplicates of a
// stopped task's sockets, and removes sockets that nobody owns any more.
package tcp

import (
	"fmt"
	"net/netip"
)

// Tuple names one TCP connection as its owner sees it. Addresses are never
// IPv4-mapped IPv6: a connection that runs over IPv4 has IPv4 addresses here
// even if its socket is an IPv6 one, since that is what a packet filter sees.
type Tuple struct {
	Local, Remote netip.AddrPort
}

// String returns "local->remote".
func (t Tuple) String() string { return fmt.Sprintf("%s->%s", t.Local, t.Remote) }

// Is4 reports whether the connection runs over IPv4.
func (t Tuple) Is4() bool { return t.Local.Addr().Is4() }
