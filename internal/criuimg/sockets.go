// SPDX-License-Identifier: Apache-2.0

package criuimg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"sync"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// socket is what is kept of a connection's socket. There may be many.
type socket struct {
	inode uint32 // names the image of the connection's stream
	state uint8
}

// readSockets reads the inet sockets in files.img or, if CRIU before 3.3 wrote the
// images, in inetsk.img.
func (cp *Checkpoint) readSockets() error {
	err := each(cp.images, "files.img", "FILES", maxFile, func(entry []byte) error {
		sk, err := inetSocket(entry)
		if err != nil || sk == nil {
			return err
		}
		return cp.add(sk)
	})
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = each(cp.images, "inetsk.img", "INETSK", maxEntry, cp.add)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a tree without sockets, and with no files but its terminal
	}
	return err
}

// iskField is the number of the inet socket in an entry of files.img.
var iskField = sync.OnceValue(func() protowire.Number {
	return (&fdinfo.FileEntry{}).ProtoReflect().Descriptor().Fields().ByName("isk").Number()
})

// inetSocket returns the encoded inet socket of an entry of files.img, or nil if the
// file is of another kind. Nothing else of the entry is decoded. A field that is
// there several times is the concatenation of all: that decodes to what CRIU makes
// of it.
func inetSocket(entry []byte) (sk []byte, err error) {
	for len(entry) > 0 {
		number, kind, n := protowire.ConsumeTag(entry)
		if n < 0 {
			return nil, damaged("%w", protowire.ParseError(n))
		}
		entry = entry[n:]
		n = protowire.ConsumeFieldValue(number, kind, entry)
		if n < 0 {
			return nil, damaged("%w", protowire.ParseError(n))
		}
		if number == iskField() && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(entry)
			sk = append(sk, value...)
		}
		entry = entry[n:]
	}
	if len(sk) > maxEntry {
		return nil, code.New(code.TooLarge, fmt.Sprintf("a socket of %d bytes is too large: %d are read at most", len(sk), maxEntry))
	}
	return sk, nil
}

// add adds an encoded socket if it is a connection.
func (cp *Checkpoint) add(data []byte) error {
	var sk sk_inet.InetSkEntry
	if err := decode(data, &sk); err != nil {
		return err
	}
	t, ok := connection(&sk)
	if !ok {
		return nil
	}
	if len(cp.Conns) == maxConns {
		return code.New(code.TooLarge, fmt.Sprintf("there are more than %d TCP connections", maxConns))
	}
	cp.Conns = append(cp.Conns, t)
	cp.socks = append(cp.socks, socket{inode: sk.GetIno(), state: uint8(sk.GetState())})
	return nil
}

// connection returns the 4-tuple of a socket, and whether it is a TCP connection,
// which CRIU rebuilds with TCP_REPAIR.
func connection(sk *sk_inet.InetSkEntry) (tcp.Tuple, bool) {
	const stream, protoTCP = 1, 6 // SOCK_STREAM, IPPROTO_TCP: the images carry the kernel's numbers
	if sk.GetType() != stream || sk.GetProto() != protoTCP {
		return tcp.Tuple{}, false
	}
	switch state := sk.GetState(); {
	case state == tcp.Listen, state == tcp.Close, state < tcp.Established, state > tcp.NewSynRecv:
		return tcp.Tuple{}, false
	}
	local, ok1 := addrPort(sk.GetSrcAddr(), sk.GetSrcPort())
	remote, ok2 := addrPort(sk.GetDstAddr(), sk.GetDstPort())
	return tcp.NewTuple(local, remote), ok1 && ok2
}

// addrPort converts an address from the images: 32-bit words whose bytes in memory
// are in network order.
func addrPort(words []uint32, port uint32) (netip.AddrPort, bool) {
	const longest = 4 // words of an IPv6 address
	if len(words) > longest {
		return netip.AddrPort{}, false
	}
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok || port == 0 || port > 65535 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, uint16(port)), true
}
