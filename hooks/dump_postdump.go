// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// postDump commits: the images are complete. Where the policy says so the
// tasks, which CRIU still holds, get a SIGSTOP, so that they stop before they
// run another instruction once CRIU lets go of them.
func (d *Dump) postDump(req action.Request) error {
	if d.now == dumpCommitted {
		return nil
	}
	if d.now != dumpPrepared {
		if err := d.check(action.PostDump, dumpCommitted); err != nil {
			return err
		}
	}
	dir, err := imageDir(req, d.env.CRIU.Ref)
	if err != nil {
		return err
	}
	tree, err := d.takeTree()
	if err != nil {
		return fmt.Errorf("find the tasks: %w", err)
	}
	defer tree.Close()
	if err := d.makeSureOfFreeze(dir, tree); err != nil {
		return err
	}
	if err := checkWorkDir(d.env.CRIU.Ref, proc.KeepsExitStatus()); err != nil {
		return err
	}
	if d.stats, err = watchStats(d.env.CRIU.Ref); err != nil {
		return err
	}
	if d.images, err = os.Open(dir); err != nil {
		return fmt.Errorf("open the image directory: %w", err)
	}
	if err := d.commit(tree); err != nil {
		return err
	}
	d.env.Log.Debug("post-dump: the images are complete")
	d.holdImages()
	return nil
}

// dumped is what the images of a dump say.
type dumped struct {
	*criuimg.Checkpoint
	streams []tcp.Stream // of the connections; some may be missing
	err     error        // why not all is known
}

// holdImages makes the images readable later, and acknowledges what they say was received.
// Some callers pack and remove them at the moment when CRIU ends, and remove the namespace
// when the tasks have, so both is done now, beside CRIU; not where the tasks are waiting
// for it to let them run on.
func (d *Dump) holdImages() {
	dir := fmt.Sprintf("/proc/self/fd/%d", d.images.Fd())
	d.read = sync.OnceValue(func() (got dumped) {
		if got.Checkpoint, got.err = criuimg.Read(dir); got.err == nil {
			got.streams, got.err = got.Streams()
		}
		return got
	})
	if d.set.Policy != config.Run {
		d.background.Go(func() {
			if err := d.acknowledge(d.read().streams); err != nil {
				d.env.Log.Debug(err)
			}
		})
	}
}

// acknowledge repeats the last acknowledgement of each connection in the images.
// The freeze may have dropped one that the kernel had put off. With this the peers
// know how far their bytes have come, and we know what they wait for: the errors of
// a nudge must name it exactly. It has CRIU's mark, with which it passes the freeze.
func (d *Dump) acknowledge(streams []tcp.Stream) error {
	if d.set.Resume != config.Nudge || d.freeze.NetNS() == nil {
		return nil
	}
	if d.reopened && d.record().Quiet {
		return nil // it is not known whose windows are shut, and those have been told
	}
	heard, err := d.listener.Stop()
	if err != nil {
		d.env.Log.Debug(err)
	}
	streams = nudge.Remote(streams)
	for i := range streams {
		if d.quiet.Has(streams[i].Tuple) {
			streams[i].Window = 0 // or the peer would send what the freeze drops
		}
	}
	acks := nudge.Acks(streams, heard, d.set.NudgePackets)
	if len(acks) == 0 {
		return nil
	}
	sender, err := nudge.Open(d.freeze.NetNS())
	if err != nil {
		return err
	}
	defer sender.Close()
	if err := sender.Mark(rules.Mark); err != nil {
		return err
	}
	d.env.Log.Debugf("repeating the last acknowledgement of %d connections", len(acks))
	err = sender.Send(acks, 0)
	d.env.Report.Sent("last acknowledgements", len(acks))
	return err
}

// makeSureOfFreeze makes sure that nothing gets in or out from here on, and has not
// since the freeze began: what came in would be in no image. It arms what is not
// armed yet: everything, where the settler that did was killed or network-lock was
// not for us; in scope connections those that were made since pre-dump. A freeze
// that has less than half of its time left gets all of it again.
func (d *Dump) makeSureOfFreeze(dir string, tree proc.Tree) error {
	left := d.record().Left()
	if d.now == dumpFrozen && left <= 0 {
		return code.New(code.Expired, fmt.Sprintf("the freeze of %s ended before the images were complete, after its time to live of %v: traffic may have come in that they lack, so the dump fails and the tasks go on; raise ttl in netfreeze.toml", d.record().NetNS, d.set.TTL))
	}
	var err error
	switch {
	case d.record().Scope == record.Connections:
		err = d.armNew(dir, tree)
	case d.now == dumpPrepared || left < d.set.TTL/2:
		err = d.freeze.Arm()
	}
	if err != nil {
		return err
	}
	d.to(dumpFrozen)
	return nil
}

// commit makes it known that the images are complete, and stops the tasks where the
// policy says so. From here on the settler decides by whether CRIU succeeds.
func (d *Dump) commit(tree proc.Tree) error {
	r, former := d.record(), *d.record()
	r.Tree, r.Phase, r.Stopped = tree.Refs(), record.Committed, stops(d.set.Policy)
	if err := d.freeze.Save(); err != nil {
		*r = former
		return err
	}
	d.to(dumpCommitted)
	if !r.Stopped {
		return nil
	}
	if err := tree.Signal(unix.SIGSTOP); err != nil {
		return errors.Join(fmt.Errorf("stop the tasks: %w", err), tree.Signal(unix.SIGCONT))
	}
	return nil
}

// armNew freezes the connections made since pre-dump as well. Until now they
// were open, unless CRIU has locked them itself: what came between CRIU's look at
// one and the freeze was acknowledged, and is in no image. Then the dump fails.
func (d *Dump) armNew(dir string, tree proc.Tree) (err error) {
	before := d.record().Conns
	defer func() {
		if err != nil {
			d.record().Conns = before // the script may be listed twice
		}
	}()
	if err := d.freeze.ArmTree(tree); err != nil {
		return err
	}
	fresh := tcp.Without(d.record().Conns, before)
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
	return checkMissedBytes(dumped, now)
}

// checkMissedBytes is an error if a socket has received more than its image says.
func checkMissedBytes(dumped []tcp.Stream, now map[tcp.Tuple]uint32) error {
	for _, s := range dumped {
		if next, ok := now[s.Tuple]; ok && next != s.RcvNxt {
			return code.New(code.NewConnection, fmt.Sprintf("%d bytes, or an end, came in on the connection %s, made after pre-dump, while it was dumped: the images lack them, so the dump fails and the tasks go on; dump again, or have CRIU lock such connections itself (netfreeze install --network-lock nftables)",
				next-s.RcvNxt, s.Tuple))
		}
	}
	return nil
}
