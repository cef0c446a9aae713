// SPDX-License-Identifier: Apache-2.0

package criuimg

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v7/crit"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	tcp_stream "github.com/checkpoint-restore/go-criu/v7/crit/images/tcp-stream"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// maxUnacked is how much of a send queue is kept, in bytes.
const maxUnacked = 64 << 10

// Streams returns where the connections stood, which it reads from one image file
// per connection. With many connections that takes a while, and it is not needed
// before the thaw. Connections whose images cannot be read are left out; the error
// joins the reasons, and may come together with streams.
func (cp *Checkpoint) Streams() ([]tcp.Stream, error) {
	streams := make([]tcp.Stream, 0, len(cp.socks))
	var errs []error
	for i, sk := range cp.socks {
		s, err := cp.stream(cp.Conns[i], sk)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		streams = append(streams, s)
	}
	return streams, errors.Join(errs...)
}

// stream reads the image of one connection. Its numbers are the kernel's, as libsoccr
// read them (soccr/soccr.c): outq_seq is write_seq and inq_seq is rcv_nxt, both
// including a FIN that was sent or received; outq_len is SIOCOUTQ without the FIN.
func (cp *Checkpoint) stream(t tcp.Tuple, sk *sk_inet.InetSkEntry) (tcp.Stream, error) {
	name := fmt.Sprintf("tcp-stream-%x.img", sk.GetIno())
	file, err := os.Open(filepath.Join(cp.dir, name))
	if err != nil {
		return tcp.Stream{}, err
	}
	defer file.Close() // opened for reading
	err = checkFrames(file, false)
	if err != nil {
		return tcp.Stream{}, fmt.Errorf("decode %s: %w", name, err)
	}
	img, err := crit.New(file, nil, "", false, false).Decode(&tcp_stream.TcpStreamEntry{})
	if err == nil && len(img.Entries) == 0 {
		err = errors.New("there is no entry")
	}
	if err != nil {
		return tcp.Stream{}, fmt.Errorf("decode %s: %w", name, err)
	}
	e, ok := img.Entries[0].Message.(*tcp_stream.TcpStreamEntry)
	if !ok {
		return tcp.Stream{}, fmt.Errorf("decode %s: it is another kind of image", name)
	}
	una, nxt := e.GetOutqSeq()-e.GetOutqLen(), e.GetOutqSeq()-e.GetUnsqLen()
	switch sk.GetState() {
	case tcp.FinWait1, tcp.Closing, tcp.LastAck:
		una-- // for the FIN, which outq_len does not include
	}
	s := tcp.NewStream(t, int(sk.GetState()), tcp.Counters{
		SndUna: una, SndNxt: nxt,
		RcvNxt: e.GetInqSeq(), RcvWup: e.GetRcvWup(), RcvWnd: e.GetRcvWnd(), RcvScale: int(e.GetRcvWscale()),
	})
	s.MSS = int(e.GetMssClamp())
	const timestamps = 1 // TCPI_OPT_TIMESTAMPS
	s.Timestamps, s.Timestamp = e.GetOptMask()&timestamps != 0, e.GetTimestamp()
	if sent := nxt - una; e.GetOutqLen() > 0 && int32(sent) > 0 { // modulo 2^32
		var queues struct {
			Out []byte `json:"out_q"`
		}
		if err := json.Unmarshal([]byte(img.Entries[0].Extra), &queues); err != nil {
			return tcp.Stream{}, fmt.Errorf("decode %s: %w", name, err)
		}
		s.Unacked = queues.Out[:min(len(queues.Out), int(sent), maxUnacked)]
	}
	return s, nil
}
