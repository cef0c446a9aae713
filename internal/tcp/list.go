// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netlinksafe"
)

// States of a TCP socket, numbered as in the kernel's include/net/tcp_states.h,
// in sock_diag(7) and in CRIU's images.
const (
	Established = 1 + iota
	SynSent
	SynRecv
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
	NewSynRecv
)

// Socket is one TCP socket of a network namespace.
type Socket struct {
	Tuple
	State   int
	Inode   uint32 // 0: no process owns it (an orphan, TIME-WAIT, an embryonic connection)
	Backlog uint32 // of a listening socket: connections that wait for accept(2)

	family byte
	id     [sockIDLen]byte
}

// List returns all TCP sockets, IPv4 and IPv6, of the calling thread's network
// namespace (sock_diag(7)). If the kernel's table does not stop changing, it
// returns what it has seen.
func List() ([]Socket, error) {
	socks, err := netlinksafe.Retry(dump)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, code.Wrap(code.Kernel, fmt.Errorf("list TCP sockets by sock_diag (is the kernel's tcp_diag module there?): %w", err))
	}
	return socks, nil
}

// dump reads the kernel's table once.
func dump() ([]Socket, error) {
	msgs, err := dumpRequest(0).Execute(unix.NETLINK_INET_DIAG, 0)
	socks := make([]Socket, 0, len(msgs))
	for _, msg := range msgs {
		if s, ok := parseSocket(msg); ok {
			socks = append(socks, s)
		}
	}
	return socks, err
}

// dumpRequest asks for the kernel's table once, for both families: the kernel has one
// table for all sockets of all namespaces. Only the older form of the request can ask
// for that (TCPDIAG_GETSOCK and inet_diag_dump_compat in net/ipv4/inet_diag.c). The bits
// in parts say what is to be told of each socket besides (INET_DIAG_*).
func dumpRequest(parts byte) *nl.NetlinkRequest {
	const tcpdiagGetSock = 18
	req := nl.NewNetlinkRequest(tcpdiagGetSock, unix.NLM_F_DUMP)
	// struct inet_diag_req of linux/inet_diag.h: idiag_states follows the id.
	var want [60]byte
	want[3] = parts
	binary.NativeEndian.PutUint32(want[4+sockIDLen:], allStates)
	req.AddRawData(want[:])
	return req
}

const (
	allStates = 0xffffffff
	sockIDLen = 48 // struct inet_diag_sockid
	diagLen   = 72 // struct inet_diag_msg
)

// parseSocket reads a struct inet_diag_msg of linux/inet_diag.h: ports and
// addresses are in network byte order, the rest is in the host's.
func parseSocket(msg []byte) (s Socket, ok bool) {
	if len(msg) < diagLen {
		return s, false
	}
	s.family, s.State = msg[0], int(msg[1])
	id, counts := msg[4:4+sockIDLen], msg[4+sockIDLen:]
	copy(s.id[:], id)
	local, remote := id[4:20], id[20:36]
	if s.family == unix.AF_INET {
		local, remote = local[:4], remote[:4]
	}
	s.Tuple = NewTuple(addrPort(local, binary.BigEndian.Uint16(id)), addrPort(remote, binary.BigEndian.Uint16(id[2:])))
	s.Inode = binary.NativeEndian.Uint32(counts[16:])
	if s.State == Listen {
		s.Backlog = binary.NativeEndian.Uint32(counts[4:]) // idiag_rqueue
	}
	return s, true
}

func addrPort(ip []byte, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a, port)
}

// Connected reports whether the socket has a peer that could send to it.
func (s Socket) Connected() bool {
	return s.State != Listen && s.State != Close && s.Remote.Port() != 0
}

// Orphan reports whether the socket is what is left of a connection that its process
// has closed. One without a process that is still open waits in a listening queue, for
// accept(2) or for the end of the handshake: it is somebody's.
func (s Socket) Orphan() bool {
	switch s.State {
	case FinWait1, FinWait2, Closing, LastAck, TimeWait:
		return s.Inode == 0
	}
	return false
}

// Colliding returns those of the sockets that have both ends of a connection to come.
func Colliding(socks []Socket, coming Set) (found []Socket) {
	for _, s := range socks {
		if s.Connected() && coming.Has(s.Tuple) {
			found = append(found, s)
		}
	}
	return found
}

// Pending returns how many handshakes are in flight among the sockets: half-open
// connections, and complete ones that the application has not accepted yet. CRIU
// can dump neither ("In-flight connection", criu/sk-inet.c).
func Pending(socks []Socket) int {
	n := 0
	for _, s := range socks {
		switch s.State {
		case Listen:
			n += int(s.Backlog)
		case SynRecv, NewSynRecv:
			n++
		}
	}
	return n
}

// Destroy removes a socket from the calling thread's network namespace
// (SOCK_DESTROY, tcp_abort in net/ipv4/tcp.c). In some states the kernel sends a
// RST for it, so the namespace or the connection must be frozen. It is no error
// if the socket is gone already.
func Destroy(s Socket) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	// struct inet_diag_req_v2 of linux/inet_diag.h
	want := []byte{s.family, unix.IPPROTO_TCP, 0, 0}
	want = binary.NativeEndian.AppendUint32(want, allStates)
	req.AddRawData(append(want, s.id[:]...))
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return code.New(code.Kernel, fmt.Sprintf("remove the socket %s: the kernel was built without CONFIG_INET_DIAG_DESTROY; "+
			"wait until the socket is gone, or restore into a new network namespace", s.Tuple))
	case err != nil && !errors.Is(err, unix.ENOENT):
		return fmt.Errorf("remove the socket %s: %w", s.Tuple, err)
	}
	return nil
}
