// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// networkUnlock is called when CRIU gives the network back: the dump has failed,
// or its caller wants the tasks to go on. CRIU ignores an error here.
func (d *Dump) networkUnlock() error {
	switch d.now {
	case dumpCommitted:
		d.to(dumpReleased)
	case dumpPrepared, dumpFrozen:
		d.to(dumpFailed)
	}
	if d.now == dumpReleased && d.set.Policy != config.Run {
		return nil // the settler decides, when it is known whether CRIU succeeded
	}
	frozen := d.freeze.FrozenFor()
	var seized []tcp.Stream
	if d.now == dumpFailed && d.nudges(frozen, minBackoff) {
		seized = d.seizedStreams()
	}
	if err := d.freeze.Lift(); err != nil || !d.freeze.Lifted() {
		return err
	}
	d.openWindows()
	switch {
	case len(seized) > 0:
		d.background.Go(func() { d.nudge(seized) })
	case d.now == dumpReleased && d.nudges(frozen, minRTO):
		root := d.record().Tree[0]
		d.background.Go(func() {
			awaitRelease(root)
			d.nudgeByImages()
		})
	}
	return nil
}

const (
	// minRTO is the shortest retransmission time-out of Linux (TCP_RTO_MIN in
	// include/net/tcp.h). After a shorter freeze nobody has backed off.
	minRTO = 200 * time.Millisecond
	// minBackoff is after which time it is worth the tasks' waiting to ask their
	// sockets, which takes some 50 microseconds each.
	minBackoff = time.Second
	// releaseTime is how long the peers' nudge is put off at most.
	releaseTime = time.Second
)

// nudges reports whether the peers of a tree that goes on in place are to be nudged:
// after some seconds of a dump their timers have backed off as after a restore.
func (d *Dump) nudges(frozen, least time.Duration) bool {
	return d.set.Resume == config.Nudge && frozen >= least && d.record().Scope == record.NetNS
}

// awaitRelease waits, a moment at most, until CRIU has let go of the tasks: to read
// images beside it would make them wait.
func awaitRelease(root proc.Ref) {
	for deadline := time.Now().Add(releaseTime); root.Traced() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// nudgeByImages nudges after a dump that succeeded: its images tell where the
// connections stand, and nobody has to wait.
func (d *Dump) nudgeByImages() {
	got := d.read()
	if got.err != nil {
		d.env.Log.Warnf("not every connection is nudged, the others wait for their peers' timers: %v", code.Wrap(code.Images, got.err))
	}
	d.nudge(got.streams)
}

// nudge has the peers, and our own kernel, repeat at once what was lost. Everybody's
// timers repeat what does not get out, so no error makes a difference.
func (d *Dump) nudge(streams []tcp.Stream) {
	packets := nudge.Plan(nudge.Remote(streams), d.set.NudgePackets, true)
	if len(packets) == 0 {
		return
	}
	sender, err := nudge.Open(d.freeze.NetNS())
	if err != nil {
		d.env.Log.Debug(err)
		return
	}
	defer sender.Close()
	if err := sender.Send(packets, lockTime); err != nil {
		d.env.Log.Debugf("nudge: %v", err)
	}
	d.env.Report.Sent("nudge", len(packets))
}

// seizedStreams asks the tree's sockets where their connections stand, by switching
// repair mode on and off. No task notices, since CRIU still has all of them; if it has
// not, nothing is touched.
func (d *Dump) seizedStreams() []tcp.Stream {
	tree, err := proc.OpenTree(d.record().Tree[0])
	if err != nil {
		d.env.Log.Debug(err)
		return nil
	}
	defer tree.Close()
	for _, p := range tree {
		if !p.Traced() {
			d.env.Log.Debugf("pid %d is no longer seized: the connections are not nudged", p.PID)
			return nil
		}
	}
	reuse, err := tcp.EnterRepair(tree)
	_, streams, err2 := tcp.LeaveRepair(tree, reuse)
	if err := errors.Join(err, err2); err != nil {
		d.env.Log.Warnf("not every connection can be nudged: %v", code.Any(err))
	}
	return streams
}
