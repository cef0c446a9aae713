package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
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

	family uint8
	id     netlink.SocketID
}

// List returns all TCP sockets, IPv4 and IPv6, of the calling thread's network
// namespace (sock_diag(7)).
func List() ([]Socket, error) {
	var all []Socket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		socks, err := dump(family)
		if err != nil {
			return nil, fmt.Errorf("list TCP sockets by sock_diag (is the kernel's tcp_diag module there?): %w", err)
		}
		for _, s := range socks {
			sock := Socket{
				Tuple: Tuple{
					Local:  addrPort(s.ID.Source, s.ID.SourcePort),
					Remote: addrPort(s.ID.Destination, s.ID.DestinationPort),
				},
				State: int(s.State), Inode: s.INode, family: s.Family, id: s.ID,
			}
			if s.State == Listen {
				sock.Backlog = s.RQueue
			}
			all = append(all, sock)
		}
	}
	return all, nil
}

// dump asks again when the kernel says that the table changed under the dump.
func dump(family uint8) (socks []*netlink.Socket, err error) {
	for range 5 {
		socks, err = netlink.SocketDiagTCP(family)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return socks, err
		}
	}
	return socks, nil // a table that never rests: what was seen is the best there is
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// Connected reports whether the socket has a peer that could send to it.
func (s Socket) Connected() bool {
	return s.State != Listen && s.State != Close && s.Remote.Port() != 0
}

// Pending counts the handshakes in flight among the sockets: half-open ones,
// and complete ones that the application has not accepted yet. CRIU can dump
// neither («In-flight connection», criu/sk-inet.c).
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
// (SOCK_DESTROY, tcp_abort in net/ipv4/tcp.c). The kernel sends a RST for it
// where the state asks for one, so the namespace or the connection has to be
// frozen. That the socket is gone already is no error.
func Destroy(s Socket) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(&diagRequest{family: s.family, id: s.id})
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("remove the socket %s: the kernel was built without CONFIG_INET_DIAG_DESTROY; wait until the socket is gone, or restore into a new network namespace", s.Tuple)
	case err != nil && !errors.Is(err, unix.ENOENT):
		return fmt.Errorf("remove the socket %s: %w", s.Tuple, err)
	}
	return nil
}

// diagRequest is struct inet_diag_req_v2 of linux/inet_diag.h: ports and
// addresses in network byte order, the rest in the host's.
type diagRequest struct {
	family uint8
	id     netlink.SocketID
}

// Len is the size of the request in bytes.
func (*diagRequest) Len() int { return 56 }

// Serialize lays the request out as the kernel reads it.
func (r *diagRequest) Serialize() []byte {
	b := make([]byte, 0, r.Len())
	b = append(b, r.family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, 0xffffffff)
	b = binary.BigEndian.AppendUint16(b, r.id.SourcePort)
	b = binary.BigEndian.AppendUint16(b, r.id.DestinationPort)
	for _, ip := range []net.IP{r.id.Source, r.id.Destination} {
		var a [16]byte
		if r.family == unix.AF_INET {
			copy(a[:], ip.To4())
		} else {
			copy(a[:], ip.To16())
		}
		b = append(b, a[:]...)
	}
	b = binary.NativeEndian.AppendUint32(b, r.id.Interface)
	b = binary.NativeEndian.AppendUint32(b, r.id.Cookie[0])
	return binary.NativeEndian.AppendUint32(b, r.id.Cookie[1])
}

// Acked returns, for each connection of the calling thread's network namespace
// that still has unacknowledged data, how many bytes its peer has acknowledged
// since the socket was made (tcpi_bytes_acked).
func Acked() (map[Tuple]uint64, error) {
	acked := map[Tuple]uint64{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		infos, err := netlink.SocketDiagTCPInfo(family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list TCP sockets by sock_diag: %w", err)
		}
		for _, i := range infos {
			if i.TCPInfo == nil || i.InetDiagMsg == nil || i.TCPInfo.Unacked == 0 {
				continue
			}
			id := i.InetDiagMsg.ID
			acked[Tuple{Local: addrPort(id.Source, id.SourcePort), Remote: addrPort(id.Destination, id.DestinationPort)}] = i.TCPInfo.Bytes_acked
		}
	}
	return acked, nil
}
