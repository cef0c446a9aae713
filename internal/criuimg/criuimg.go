// SPDX-License-Identifier: Apache-2.0

// Package criuimg reads from a CRIU image directory what has to be known before a
// restore: which TCP connections will be rebuilt, where they stood, and where their
// network namespace comes from.
package criuimg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v7/crit"
	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/netdev"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	"google.golang.org/protobuf/proto"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// NetNS says where a restored tree's network namespace comes from.
type NetNS int

// The three cases that CRIU knows (criu/namespaces.c, criu/net.c).
const (
	// Shared: the tree was in CRIU's own namespace, and will be in CRIU's own.
	Shared NetNS = iota
	// External: CRIU's caller passes it an existing namespace.
	External
	// Dumped: the namespace is in the images, from which CRIU makes a new one.
	Dumped
)

// Checkpoint is what the images tell about the network.
type Checkpoint struct {
	NetNS  NetNS
	ExtKey string      // of an External namespace: the key that it was dumped with, such as "extRootNetNS"
	Conns  []tcp.Tuple // connections that the restore rebuilds

	dir   string
	socks []*sk_inet.InetSkEntry // of Conns
}

// Read reads the image directory dir. A damaged image is an error.
func Read(dir string) (*Checkpoint, error) {
	cp, err := read(dir)
	if err != nil {
		return nil, fmt.Errorf("read the checkpoint's images in %s: %w", dir, err)
	}
	return cp, nil
}

func read(dir string) (*Checkpoint, error) {
	cp := &Checkpoint{dir: dir}
	if err := cp.readNetNS(dir); err != nil {
		return nil, err
	}
	socks, err := readSockets(dir)
	if err != nil {
		return nil, err
	}
	for _, sk := range socks {
		if t, ok := connection(sk); ok {
			cp.Conns = append(cp.Conns, t)
			cp.socks = append(cp.socks, sk)
		}
	}
	return cp, nil
}

// readNetNS compares the root task's network namespace with the one that CRIU was
// in at the dump, as criu/pstree.c does to tell which namespaces are the tree's own.
func (cp *Checkpoint) readNetNS(dir string) error {
	inv, err := first[*inventory.InventoryEntry](dir, "inventory.img", &inventory.InventoryEntry{})
	if err != nil {
		return err
	}
	root, err := first[*pstree.PstreeEntry](dir, "pstree.img", &pstree.PstreeEntry{})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("ids-%d.img", root.GetPid())
	ids, err := first[*criu_core.TaskKobjIdsEntry](dir, name, &criu_core.TaskKobjIdsEntry{})
	if err != nil {
		return err
	}
	if ids.GetNetNsId() == inv.GetRootIds().GetNetNsId() {
		cp.NetNS = Shared
		return nil
	}
	cp.NetNS = Dumped
	name = fmt.Sprintf("netns-%d.img", ids.GetNetNsId())
	ns, err := first[*netdev.NetnsEntry](dir, name, &netdev.NetnsEntry{})
	if errors.Is(err, os.ErrNotExist) {
		return nil // dumped with --empty-ns net: CRIU makes an empty one
	}
	if err != nil {
		return err
	}
	if cp.ExtKey = ns.GetExtKey(); cp.ExtKey != "" {
		cp.NetNS = External
	}
	return nil
}

// readSockets returns the inet sockets in files.img or, if CRIU before 3.3 wrote the
// images, in inetsk.img.
func readSockets(dir string) ([]*sk_inet.InetSkEntry, error) {
	var socks []*sk_inet.InetSkEntry
	err := each(dir, "files.img", &fdinfo.FileEntry{}, func(m proto.Message) {
		if f, ok := m.(*fdinfo.FileEntry); ok && f.GetIsk() != nil {
			socks = append(socks, f.GetIsk())
		}
	})
	if !errors.Is(err, os.ErrNotExist) {
		return socks, err
	}
	err = each(dir, "inetsk.img", &sk_inet.InetSkEntry{}, func(m proto.Message) {
		if sk, ok := m.(*sk_inet.InetSkEntry); ok {
			socks = append(socks, sk)
		}
	})
	if errors.Is(err, os.ErrNotExist) {
		err = nil // a tree without sockets, and with no files but its terminal
	}
	return socks, err
}

// connection returns the 4-tuple of a socket, and whether it is a TCP connection,
// which CRIU rebuilds with TCP_REPAIR.
func connection(sk *sk_inet.InetSkEntry) (tcp.Tuple, bool) {
	const stream, protoTCP = 1, 6 // SOCK_STREAM, IPPROTO_TCP: the images carry the kernel's numbers
	if sk.GetType() != stream || sk.GetProto() != protoTCP {
		return tcp.Tuple{}, false
	}
	switch sk.GetState() {
	case tcp.Listen, tcp.Close:
		return tcp.Tuple{}, false
	}
	local, ok1 := addrPort(sk.GetSrcAddr(), sk.GetSrcPort())
	remote, ok2 := addrPort(sk.GetDstAddr(), sk.GetDstPort())
	return tcp.NewTuple(local, remote), ok1 && ok2
}

// addrPort converts an address from the images: 32-bit words whose bytes in memory
// are in network order.
func addrPort(words []uint32, port uint32) (netip.AddrPort, bool) {
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

// first returns the first entry of an image file. A file without one is an error.
func first[T proto.Message](dir, name string, entry T) (T, error) {
	var found []T
	err := each(dir, name, entry, func(m proto.Message) {
		if e, ok := m.(T); ok {
			found = append(found, e)
		}
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s has no entry", name)
	}
	if err != nil {
		var none T
		return none, err
	}
	return found[0], nil
}

// each calls f with every entry of an image file.
func each(dir, name string, entry proto.Message, f func(proto.Message)) error {
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer file.Close() // opened for reading
	if err := checkFrames(file, true); err != nil {
		return fmt.Errorf("decode %s: %w", name, err)
	}
	img, err := crit.New(file, nil, "", false, true).Decode(entry)
	if err != nil {
		return fmt.Errorf("decode %s: %w", name, err)
	}
	for _, e := range img.Entries {
		f(e.Message)
	}
	return nil
}

// checkFrames checks that the sizes that precede the entries (all of them, or the
// first one only) fit into the file, because the decoder allocates that much. It
// leaves the file at its start.
func checkFrames(file *os.File, all bool) error {
	st, err := file.Stat()
	if err != nil {
		return err
	}
	if _, err := crit.ReadMagic(file); err != nil {
		return err
	}
	for {
		var size uint32
		err := binary.Read(file, binary.LittleEndian, &size)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		at, err := file.Seek(int64(size), io.SeekCurrent)
		if err != nil {
			return err
		}
		if at > st.Size() {
			return fmt.Errorf("the file is damaged: an entry of %d bytes does not fit in", size)
		}
		if !all {
			break
		}
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}
