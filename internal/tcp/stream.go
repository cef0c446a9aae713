// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"encoding/binary"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// Stream tells where one connection stood when it was frozen: what its owner had
// sent and received, in sequence numbers modulo 2^32 (RFC 9293, section 3.3.1).
type Stream struct {
	Tuple
	State int

	SndUna, SndNxt uint32 // oldest byte that the peer has not acknowledged; next one to send
	RcvNxt         uint32 // next byte expected from the peer
	RcvAcked       uint32 // acknowledgement number of the last segment sent: RcvNxt or before
	Window         uint16 // as in the header, which means scaled
	Unacked        []byte // the bytes from SndUna on that were sent, if they are known

	MSS        int    // bytes per segment at most
	Timestamps bool   // RFC 7323 timestamps are in use
	Timestamp  uint32 // our clock then; if we sent a later value, the peer could drop what follows it (PAWS)
}

// CanAck reports whether the connection is in a state in which we have received
// something, and there is a peer that can use an acknowledgement of it.
func (s Stream) CanAck() bool {
	switch s.State {
	case Established, CloseWait, FinWait1, FinWait2, Closing, LastAck:
		return true
	}
	return false
}

// Counters are the numbers that tell where a connection stands, called as in the
// kernel's struct tcp_sock. Sequence numbers are modulo 2^32.
type Counters struct {
	SndUna, SndNxt uint32 // oldest unacknowledged byte; next one to send
	RcvNxt         uint32 // next byte expected from the peer
	RcvWup, RcvWnd uint32 // struct tcp_repair_window: RcvNxt at the last window update sent; the window then, in bytes
	RcvScale       int    // the scale of our window (RFC 7323), in bits
}

// NewStream returns the stream of a connection in a state, such as [Established],
// with the counters that the kernel or CRIU's images give for it.
func NewStream(t Tuple, state int, c Counters) Stream {
	return Stream{
		Tuple: t, State: state, SndUna: c.SndUna, SndNxt: c.SndNxt, RcvNxt: c.RcvNxt, RcvAcked: c.RcvWup,
		Window: c.window(),
	}
}

// window returns the window as it is written in a segment's header: the free
// space up to the right edge that the peer was told of, scaled
// (tcp_receive_window in include/net/tcp.h).
func (c Counters) window() uint16 {
	free := int32(c.RcvWup + c.RcvWnd - c.RcvNxt) // modulo 2^32
	if free < 0 {
		return 0
	}
	return uint16(min(uint32(free)>>c.RcvScale, 0xffff)) // just limited
}

// Queues of a socket in repair mode (linux/tcp.h).
const (
	noQueue = iota
	recvQueue
	sendQueue
)

// rcvScale returns tcpi_rcv_wscale: the upper half of the byte after
// tcpi_options, which x/sys leaves out since it is a bit field.
func rcvScale(info *unix.TCPInfo) int {
	b := *(*byte)(unsafe.Add(unsafe.Pointer(&info.Options), 1))
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return int(b >> 4)
	}
	return int(b & 0xf) // bit fields begin at the other end there
}

// readStream reads where a connected socket in repair mode stands.
func readStream(fd int, t Tuple) (Stream, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return Stream{}, fmt.Errorf("read TCP_INFO: %w", err)
	}
	rcvNxt, err := queueSeq(fd, recvQueue)
	if err != nil {
		return Stream{}, err
	}
	writeSeq, err := queueSeq(fd, sendQueue)
	if err != nil {
		return Stream{}, err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, noQueue); err != nil {
		return Stream{}, fmt.Errorf("leave the queue: %w", err)
	}
	queued, err1 := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	unsent, err2 := unix.IoctlGetInt(fd, unix.SIOCOUTQNSD)
	if err1 != nil || err2 != nil {
		return Stream{}, fmt.Errorf("read the send queue's size: %w, %w", err1, err2)
	}
	wnd, err := repairWindow(fd)
	if err != nil {
		return Stream{}, err
	}
	s := NewStream(t, int(info.State), Counters{
		SndUna: writeSeq - uint32(queued), SndNxt: writeSeq - uint32(unsent),
		RcvNxt: rcvNxt, RcvWup: wnd.rcvWup, RcvWnd: wnd.rcvWnd, RcvScale: rcvScale(info),
	})
	s.MSS = int(info.Snd_mss)
	const timestamps = 1 // TCPI_OPT_TIMESTAMPS
	if s.Timestamps = info.Options&timestamps != 0; s.Timestamps {
		ts, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
		if err != nil {
			return Stream{}, fmt.Errorf("read TCP_TIMESTAMP: %w", err)
		}
		s.Timestamp = uint32(ts) // modulo 2^32
	}
	return s, nil
}

// Received returns the next sequence number that each of these connections expects
// (rcv_nxt), for those that are sockets of the tree in repair mode.
func Received(tree proc.Tree, conns []Tuple) (map[Tuple]uint32, error) {
	wanted := SetOf(conns)
	next := make(map[Tuple]uint32, len(conns))
	var mu sync.Mutex
	err := eachTCP(tree, func(fd int, _ uint32) error {
		if on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR); err != nil || on != 1 {
			return err
		}
		local, err1 := address(unix.Getsockname(fd))
		remote, err2 := address(unix.Getpeername(fd))
		t := NewTuple(local, remote)
		if err1 != nil || err2 != nil || !wanted.Has(t) {
			return nil // not connected, or not wanted
		}
		seq, err := queueSeq(fd, recvQueue)
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, noQueue)
		}
		mu.Lock()
		defer mu.Unlock()
		next[t] = seq
		return err
	})
	return next, err
}

func queueSeq(fd, queue int) (uint32, error) {
	err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue)
	var seq int
	if err == nil {
		seq, err = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
	}
	if err != nil {
		return 0, fmt.Errorf("read the sequence number of queue %d: %w", queue, err)
	}
	return uint32(seq), nil // modulo 2^32
}

// tcpRepairWindow is struct tcp_repair_window of linux/tcp.h.
type tcpRepairWindow struct {
	sndWl1, sndWnd, maxWindow, rcvWnd, rcvWup uint32
}

func repairWindow(fd int) (w tcpRepairWindow, err error) {
	size := uint32(unsafe.Sizeof(w))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW,
		uintptr(unsafe.Pointer(&w)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return w, fmt.Errorf("read TCP_REPAIR_WINDOW: %w", errno)
	}
	return w, nil
}

// TuplesOf returns the names of the streams, in their order.
func TuplesOf(streams []Stream) []Tuple {
	all := make([]Tuple, len(streams))
	for i, s := range streams {
		all[i] = s.Tuple
	}
	return all
}
