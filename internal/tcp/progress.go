// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	attributes "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netlinksafe"
)

// Progress is how far a connection has come since its socket was made.
type Progress struct {
	Acked    uint64        // bytes that the peer has acknowledged (tcpi_bytes_acked)
	Received uint64        // bytes that were received in order (tcpi_bytes_received)
	Waits    bool          // something that was sent is not acknowledged
	RTT      time.Duration // how long a round trip takes
}

// fewConns is up to how many connections are asked for one by one. To list them the
// kernel goes through its table of all sockets of the machine, which takes as long as
// some 30 questions even where it is empty.
const fewConns = 30

// ListProgress returns how far the connections have come, in the calling thread's network
// namespace (sock_diag(7), struct tcp_info). Those that are gone are missing; others of
// the namespace may be there as well.
func ListProgress(conns []Tuple) (all map[Tuple]Progress, err error) {
	if len(conns) <= fewConns {
		all, err = progressOf(conns)
		if err == nil && len(all) == len(conns) {
			return all, nil
		}
		// One that is not found may be gone, or bound to an interface.
	}
	all, err = netlinksafe.Retry(listProgress)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list TCP sockets by sock_diag: %w", err)
	}
	return all, nil
}

// listProgress is dump for the progress of the connections.
func listProgress() (map[Tuple]Progress, error) {
	all := map[Tuple]Progress{}
	err := dumpRequest(wantInfo).ExecuteIter(unix.NETLINK_INET_DIAG, 0, func(msg []byte) bool {
		if s, info, ok := parseInfo(msg); ok {
			all[s.Tuple] = info
		}
		return true
	})
	return all, err
}

// progressOf asks for each of the connections by its addresses. Those that are not found
// are missing.
func progressOf(conns []Tuple) (map[Tuple]Progress, error) {
	socket, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, err
	}
	handle := &nl.SocketHandle{Socket: socket}
	defer handle.Close()
	if err := socket.SetReceiveTimeout(&nl.SocketTimeoutTv); err != nil {
		return nil, err
	}
	all := make(map[Tuple]Progress, len(conns))
	for _, t := range conns {
		req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_INET_DIAG: handle}
		req.AddRawData(t.question(wantInfo))
		msgs, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
		switch {
		case errors.Is(err, unix.ENOENT):
			continue
		case err != nil:
			return nil, err
		}
		for _, msg := range msgs {
			// The kernel names a listening socket where there is no connection.
			if s, info, ok := parseInfo(msg); ok && s.Tuple == t {
				all[t] = info
			}
		}
	}
	return all, nil
}

// question returns a struct inet_diag_req_v2 of linux/inet_diag.h that asks for one
// connection, and for the parts of an answer whose bits are set in parts. Over IPv4 it
// finds an IPv6 socket as well.
func (t Tuple) question(parts byte) []byte {
	family := byte(unix.AF_INET6)
	if t.Is4() {
		family = unix.AF_INET
	}
	q := binary.NativeEndian.AppendUint32([]byte{family, unix.IPPROTO_TCP, parts, 0}, allStates)
	var id [sockIDLen]byte
	binary.BigEndian.PutUint16(id[0:], t.Local.Port())
	binary.BigEndian.PutUint16(id[2:], t.Remote.Port())
	copy(id[4:], t.Local.Addr().AsSlice())
	copy(id[20:], t.Remote.Addr().AsSlice())
	for i := sockIDLen - 8; i < sockIDLen; i++ {
		id[i] = 0xff // INET_DIAG_NOCOOKIE
	}
	return append(q, id[:]...)
}

// wantInfo is the bit that asks for a struct tcp_info, attribute infoAttribute.
const (
	infoAttribute = 2 // INET_DIAG_INFO of linux/inet_diag.h
	wantInfo      = 1 << (infoAttribute - 1)
)

// parseInfo reads a struct inet_diag_msg with the struct tcp_info behind it, which
// sockets in TIME-WAIT have none of. What an older kernel's lacks is 0.
func parseInfo(msg []byte) (s Socket, p Progress, ok bool) {
	if s, ok = parseSocket(msg); !ok {
		return s, p, false
	}
	attrs, err := attributes.NewAttributeDecoder(msg[diagLen:])
	for err == nil && attrs.Next() {
		if attrs.Type() == infoAttribute {
			var info unix.TCPInfo
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info)), attrs.Bytes())
			return s, Progress{Acked: info.Bytes_acked, Received: info.Bytes_received, Waits: info.Unacked != 0, RTT: roundTrip(info)}, true
		}
	}
	return s, p, false
}

// roundTrip returns the time of a round trip as a connection has measured it. The smoothed
// time (tcpi_rtt) contains the time by which the peer puts its acknowledgements off, 40 ms
// and more, where one side mostly sends: so it is no more than twice the shortest of the
// last minutes (tcpi_min_rtt, ~0 without a measurement), for queues on the way.
func roundTrip(info unix.TCPInfo) time.Duration {
	rtt, shortest := uint64(info.Rtt), uint64(info.Min_rtt)
	if shortest != 0 && shortest != math.MaxUint32 {
		rtt = min(rtt, 2*shortest)
	}
	return time.Duration(rtt) * time.Microsecond
}
