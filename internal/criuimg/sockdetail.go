// SPDX-License-Identifier: Apache-2.0

package criuimg

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	sk_opts "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-opts"
	tcp_stream "github.com/checkpoint-restore/go-criu/v7/crit/images/tcp-stream"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Socket is an inet socket in the images, with what a person wants to know of it.
type Socket struct {
	Protocol int // IPPROTO_TCP and so on
	Type     int // SOCK_STREAM and so on
	State    int // of a TCP socket, such as [tcp.Listen]

	// Local is where the socket is bound, Remote the other end; either may be invalid.
	// A connection has no IPv4-mapped addresses, as in [tcp.Tuple].
	Local, Remote netip.AddrPort
	V6Only        bool   // of a socket of IPv6: it does not take IPv4 as well
	Device        string // the interface that it is bound to, or that its link-local address belongs to

	Backlog    int // of a listening socket: how many connections may wait
	ReusePort  bool
	ShutRead   bool // shutdown(2)
	ShutWrite  bool
	Keepalive  bool
	Connection bool // CRIU rebuilds it with TCP_REPAIR

	inode uint32
}

// Queues is what the image of a connection's stream says. Lengths are in bytes.
type Queues struct {
	Received int // what the application has not read; it follows the entry in the image
	Sent     int // what the peer has not acknowledged, and what was not sent yet
	Unsent   int // the part of Sent that was not sent yet

	MSS                          int  // bytes per segment at most
	Timestamps, SACK, Scale, ECN bool // what both ends agreed on (tcpi_options)
	SendScale, ReceiveScale      int  // RFC 7323, in bits
	NoDelay, Cork                bool
}

// Sockets returns all inet sockets of the images: connections, listening sockets and
// the rest. It reads files.img once more.
func (cp *Checkpoint) Sockets() ([]Socket, error) {
	var found []Socket
	add := func(data []byte) error {
		var sk sk_inet.InetSkEntry
		if err := decode(data, &sk); err != nil {
			return err
		}
		if len(found) == maxConns {
			return code.New(code.TooLarge, fmt.Sprintf("there are more than %d sockets", maxConns))
		}
		found = append(found, describe(&sk))
		return nil
	}
	err := each(cp.images, "files.img", "FILES", maxFile, func(entry []byte) error {
		sk, err := inetSocket(entry)
		if err != nil || sk == nil {
			return err
		}
		return add(sk)
	})
	if errors.Is(err, fs.ErrNotExist) {
		if err = each(cp.images, "inetsk.img", "INETSK", maxEntry, add); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	return found, err
}

func describe(sk *sk_inet.InetSkEntry) Socket {
	s := Socket{
		Protocol: int(sk.GetProto()), Type: int(sk.GetType()), State: int(sk.GetState()), inode: sk.GetIno(),
		V6Only: sk.GetV6Only(), Backlog: int(sk.GetBacklog()), Device: sk.GetIfname(),
		ReusePort: sk.GetOpts().GetSoReuseport(), Keepalive: sk.GetOpts().GetSoKeepalive(),
	}
	if dev := sk.GetOpts().GetSoBoundDev(); dev != "" {
		s.Device = dev
	}
	how := sk.GetShutdown()
	s.ShutRead = how == sk_opts.SkShutdown_READ || how == sk_opts.SkShutdown_BOTH
	s.ShutWrite = how == sk_opts.SkShutdown_WRITE || how == sk_opts.SkShutdown_BOTH
	s.Local, _ = addrPort(sk.GetSrcAddr(), sk.GetSrcPort())
	s.Remote, _ = addrPort(sk.GetDstAddr(), sk.GetDstPort())
	var t tcp.Tuple
	if t, s.Connection = connection(sk); s.Connection {
		s.Local, s.Remote = t.Local, t.Remote
	}
	return s
}

// Listens reports whether the socket takes connections, or datagrams from anybody.
func (s Socket) Listens() bool {
	switch s.Protocol {
	case unix.IPPROTO_TCP:
		return s.State == tcp.Listen && s.Local.IsValid()
	case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE:
		return s.Local.IsValid() && !s.Remote.IsValid()
	}
	return false
}

// Queues returns what the image of a connection's stream says. The queues themselves
// are not read, but must be within the file.
func (cp *Checkpoint) Queues(s Socket) (Queues, error) {
	img, err := open(cp.images, fmt.Sprintf("tcp-stream-%x.img", s.inode), "TCP_STREAM")
	if err != nil {
		return Queues{}, err
	}
	defer img.Close()
	var e tcp_stream.TcpStreamEntry
	if err := img.first(&e); err != nil {
		return Queues{}, err
	}
	if in, out, left := int64(e.GetInqLen()), int64(e.GetOutqLen()), img.size-img.read; in+out > left {
		return Queues{}, fmt.Errorf("decode %s: %w", img.name, damaged("it claims queues of %d and %d bytes, and %d are left in the file", in, out, left))
	}
	const timestamps, sack, scale, ecn = 1, 2, 4, 8 // TCPI_OPT_* of linux/tcp.h
	mask := e.GetOptMask()
	return Queues{
		Received: int(e.GetInqLen()), Sent: int(e.GetOutqLen()), Unsent: int(e.GetUnsqLen()), MSS: int(e.GetMssClamp()),
		Timestamps: mask&timestamps != 0, SACK: mask&sack != 0, Scale: mask&scale != 0, ECN: mask&ecn != 0,
		SendScale: int(e.GetSndWscale()), ReceiveScale: int(e.GetRcvWscale()), NoDelay: e.GetNodelay(), Cork: e.GetCork(),
	}, nil
}
