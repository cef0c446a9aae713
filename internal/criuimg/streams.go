// SPDX-License-Identifier: Apache-2.0

package criuimg

import (
	"errors"
	"fmt"

	tcp_stream "github.com/checkpoint-restore/go-criu/v7/crit/images/tcp-stream"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// How much of the send queues is kept, in bytes: of one, and of all together.
const (
	maxUnacked    = 64 << 10
	maxUnackedAll = 128 << 20
)

// What the protocol allows: the largest shift count (RFC 7323, section 2.3), and what
// the MSS option can say (RFC 9293, section 3.2).
const (
	maxScale = 14
	maxMSS   = 1<<16 - 1
)

// Streams returns where the connections stood, which it reads from one image file
// per connection. With many connections that takes a while, and it is not needed
// before the thaw. Connections whose images cannot be read are left out; the error
// joins the reasons, and may come together with streams. Once the unacknowledged bytes
// of all connections exceed what is kept, the other streams come without theirs.
func (cp *Checkpoint) Streams() ([]tcp.Stream, error) {
	streams := make([]tcp.Stream, 0, len(cp.socks))
	var errs []error
	room := maxUnackedAll
	for i, sk := range cp.socks {
		s, err := cp.stream(cp.Conns[i], sk, min(room, maxUnacked))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		room -= len(s.Unacked)
		streams = append(streams, s)
	}
	return streams, errors.Join(errs...)
}

// stream reads the image of one connection: one entry, then the receive queue and the
// send queue, of which only the bytes that are kept are read. Its numbers are the
// kernel's, as libsoccr read them (soccr/soccr.c): outq_seq is write_seq and inq_seq
// is rcv_nxt, both including a FIN that was sent or received; outq_len is SIOCOUTQ
// without the FIN. At most room bytes of the send queue are kept.
func (cp *Checkpoint) stream(t tcp.Tuple, sk socket, room int) (tcp.Stream, error) {
	img, err := open(cp.images, fmt.Sprintf("tcp-stream-%x.img", sk.inode), "TCP_STREAM")
	if err != nil {
		return tcp.Stream{}, err
	}
	defer img.Close()
	var e tcp_stream.TcpStreamEntry
	if err := img.first(&e); err != nil {
		return tcp.Stream{}, err
	}
	if e.GetRcvWscale() > maxScale || e.GetMssClamp() > maxMSS {
		return tcp.Stream{}, fmt.Errorf("decode %s: %w", img.name,
			damaged("no connection has a window scale of %d or segments of %d bytes", e.GetRcvWscale(), e.GetMssClamp()))
	}
	una, nxt := e.GetOutqSeq()-e.GetOutqLen(), e.GetOutqSeq()-e.GetUnsqLen()
	switch sk.state {
	case tcp.FinWait1, tcp.Closing, tcp.LastAck:
		una-- // for the FIN, which outq_len does not include
	}
	s := tcp.NewStream(t, int(sk.state), tcp.Counters{
		SndUna: una, SndNxt: nxt,
		RcvNxt: e.GetInqSeq(), RcvWup: e.GetRcvWup(), RcvWnd: e.GetRcvWnd(), RcvScale: int(e.GetRcvWscale()),
	})
	s.MSS = int(e.GetMssClamp())
	const timestamps = 1 // TCPI_OPT_TIMESTAMPS
	s.Timestamps, s.Timestamp = e.GetOptMask()&timestamps != 0, e.GetTimestamp()
	s.Unacked, err = img.sendQueue(&e, nxt-una, room)
	if err != nil {
		return tcp.Stream{}, fmt.Errorf("decode %s: %w", img.name, err)
	}
	return s, nil
}

// sendQueue returns the beginning of the send queue that follows a stream's entry and
// the receive queue: at most the sent bytes, which are not acknowledged, and at most
// room of them. It checks that both queues are within the file.
func (img *image) sendQueue(e *tcp_stream.TcpStreamEntry, sent uint32, room int) ([]byte, error) {
	in, out := int64(e.GetInqLen()), int64(e.GetOutqLen())
	if in+out > img.size-img.read {
		return nil, damaged("it claims queues of %d and %d bytes, and %d are left in the file", in, out, img.size-img.read)
	}
	if out == 0 || int32(sent) <= 0 { // modulo 2^32
		return nil, nil
	}
	queue := make([]byte, min(out, int64(sent), int64(room)))
	if _, err := img.at.ReadAt(queue, img.read+in); err != nil {
		return nil, fmt.Errorf("read the send queue: %w", err)
	}
	return queue, nil
}
