package hooks

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// postDump commits: the images are complete. Where the policy says so the
// tasks, which CRIU still holds, get a SIGSTOP, so that they stop before they
// run another instruction once CRIU lets go of them.
func (t *transaction) postDump(a request) error {
	if t.rec.Phase == record.Committed {
		return nil
	}
	dir, err := a.images(t.criu.Ref)
	if err != nil {
		return err
	}
	tree, err := proc.OpenTree(t.rec.Tree[0])
	if err != nil {
		return fmt.Errorf("find the tasks: %w", err)
	}
	defer tree.Close()
	switch {
	case t.rec.Scope == record.NetNS && t.armed.IsZero():
		err = t.arm() // the settler that did was killed, or network-lock was not for us
	case t.rec.Scope == record.Connections:
		err = t.armFresh(dir, tree)
	}
	if err != nil {
		return err
	}
	if t.stats, err = watchStats(t.criu.Ref); err != nil {
		return err
	}
	if t.images, err = os.Open(dir); err != nil {
		return fmt.Errorf("open the image directory: %w", err)
	}
	t.rec.Tree = tree.Refs()
	t.rec.Phase = record.Committed
	if stops(t.set.Policy) {
		t.rec.Stopped = true
	}
	if err := t.rec.Save(); err != nil {
		return err
	}
	if !t.rec.Stopped {
		return nil
	}
	if err := tree.Signal(unix.SIGSTOP); err != nil {
		return errors.Join(fmt.Errorf("stop the tasks: %w", err), tree.Signal(unix.SIGCONT))
	}
	return nil
}

// armFresh freezes the connections made since pre-dump as well. Until now they
// were open, unless CRIU has locked them itself: what came between CRIU's look at
// one and the freeze was acknowledged, and is in no image. Then the dump fails.
func (t *transaction) armFresh(dir string, tree proc.Tree) (err error) {
	before := t.rec.Conns
	defer func() {
		if err != nil {
			t.rec.Conns = before // the script may be listed twice
		}
	}()
	if err := t.armConnections(tree); err != nil {
		return err
	}
	fresh := without(t.rec.Conns, before)
	if len(fresh) == 0 {
		return nil
	}
	cp, err := criuimg.Read(dir)
	if err != nil {
		return err
	}
	dumped, err := cp.Streams()
	if err != nil {
		return err
	}
	now, err := tcp.Received(tree, fresh)
	if err != nil {
		return err
	}
	return slipped(dumped, now)
}

// slipped is an error if a socket has received more than its image says.
func slipped(dumped []tcp.Stream, now map[tcp.Tuple]uint32) error {
	for _, s := range dumped {
		if next, ok := now[s.Tuple]; ok && next != s.RcvNxt {
			return fmt.Errorf("%d bytes, or an end, came in on the connection %s, made after pre-dump, while it was dumped: the images lack them, so the dump fails and the tasks go on; dump again, or have CRIU lock such connections itself (netfreeze install --network-lock nftables)",
				next-s.RcvNxt, s.Tuple)
		}
	}
	return nil
}

// without returns those of a that are not in b.
func without(a, b []tcp.Tuple) []tcp.Tuple {
	in := make(map[tcp.Tuple]bool, len(b))
	for _, t := range b {
		in[t] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(t tcp.Tuple) bool { return in[t] })
}

// dumpUnlock is called when CRIU gives the network back: the dump has failed,
// or its caller wants the tasks to go on. CRIU ignores an error here.
func (t *transaction) dumpUnlock() error {
	t.unlocked = true
	if t.rec.Phase == record.Committed && t.set.Policy != config.Run {
		return nil // the settler decides, when it is known whether CRIU succeeded
	}
	return t.lift()
}
