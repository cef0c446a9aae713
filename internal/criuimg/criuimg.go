// SPDX-License-Identifier: Apache-2.0

// Package criuimg reads from a CRIU image directory what has to be known before a
// restore: which TCP connections will be rebuilt, where they stood, and where their
// network namespace comes from.
package criuimg

import (
	"errors"
	"fmt"
	"io/fs"

	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/netdev"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	"google.golang.org/protobuf/proto"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
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

	images fs.FS
	socks  []socket // of Conns
}

// Read reads the image directory dir. A damaged image is an error, and so is one that
// is larger than any that CRIU writes.
func Read(dir string) (*Checkpoint, error) {
	cp, err := read(directory(dir))
	if err != nil {
		return nil, code.Wrap(code.Images, fmt.Errorf("read the checkpoint's images in %s: %w", dir, err))
	}
	return cp, nil
}

func read(images fs.FS) (*Checkpoint, error) {
	cp := &Checkpoint{images: images}
	if err := cp.readNetNS(); err != nil {
		return nil, err
	}
	if err := cp.readSockets(); err != nil {
		return nil, err
	}
	return cp, nil
}

// Warm does beforehand, and beside its caller, what the first images cost besides reading
// them: messages are described to the decoder when the first of their kind comes. Where
// CRIU waits for [Read], that is a good part of it.
func Warm() {
	go func() {
		magics()
		for _, m := range []proto.Message{
			&fdinfo.FileEntry{}, &sk_inet.InetSkEntry{}, &inventory.InventoryEntry{}, &pstree.PstreeEntry{}, &criu_core.TaskKobjIdsEntry{}, &netdev.NetnsEntry{},
		} {
			_ = decode(nil, m) // nothing is damaged in no bytes
		}
	}()
}

// readNetNS compares the root task's network namespace with the one that CRIU was
// in at the dump, as criu/pstree.c does to tell which namespaces are the tree's own.
func (cp *Checkpoint) readNetNS() error {
	var inv inventory.InventoryEntry
	if err := first(cp.images, "inventory.img", "INVENTORY", &inv); err != nil {
		return err
	}
	var root pstree.PstreeEntry // the root task comes first (criu/pstree.c)
	if err := first(cp.images, "pstree.img", "PSTREE", &root); err != nil {
		return err
	}
	var ids criu_core.TaskKobjIdsEntry
	if err := first(cp.images, fmt.Sprintf("ids-%d.img", root.GetPid()), "IDS", &ids); err != nil {
		return err
	}
	if ids.GetNetNsId() == inv.GetRootIds().GetNetNsId() {
		cp.NetNS = Shared
		return nil
	}
	cp.NetNS = Dumped
	var ns netdev.NetnsEntry
	err := first(cp.images, fmt.Sprintf("netns-%d.img", ids.GetNetNsId()), "NETNS", &ns)
	if errors.Is(err, fs.ErrNotExist) {
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
