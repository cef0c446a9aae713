package hooks

import (
	"errors"
	"fmt"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
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
	send := d.prepareNudge()
	err := d.freeze.Lift()
	if err == nil && d.freeze.Lifted() {
		send()
	}
	return err
}

// minRTO is the shortest retransmission time-out of Linux (TCP_RTO_MIN in
// include/net/tcp.h). After a shorter freeze nobody has backed off.
const minRTO = 200 * time.Millisecond

// prepareNudge prepares to nudge the peers of a tree that goes on in place: after
// some seconds of a dump their timers have backed off as after a restore. What is
// returned sends, beside CRIU. Everybody's timers repeat what does not get out, so no
// error makes a difference.
func (d *Dump) prepareNudge() (send func()) {
	nothing := func() {}
	if d.set.Resume != config.Nudge || d.freeze.FrozenFor() < minRTO || d.freeze.Lifted() {
		return nothing
	}
	streams, err := d.seizedStreams()
	if err != nil {
		d.env.Log.Debug(err)
		return nothing
	}
	packets := nudge.Plan(nudge.Remote(streams), d.set.NudgePackets, true)
	if len(packets) == 0 {
		return nothing
	}
	sender, err := nudge.Open(d.freeze.NetNS())
	if err != nil {
		d.env.Log.Debug(err)
		return nothing
	}
	return func() {
		d.background.Go(func() {
			defer sender.Close()
			if err := sender.Send(packets, lockTime); err != nil {
				d.env.Log.Debugf("nudge: %v", err)
			}
		})
	}
}

// seizedStreams asks the tree's sockets where their connections stand, by switching
// repair mode on and off. No task notices, since CRIU still has all of them; if it has
// not, that is an error and nothing is touched.
func (d *Dump) seizedStreams() ([]tcp.Stream, error) {
	tree, err := proc.OpenTree(d.record().Tree[0])
	if err != nil {
		return nil, fmt.Errorf("find the tasks: %w", err)
	}
	defer tree.Close()
	for _, p := range tree {
		if !p.Traced() {
			return nil, fmt.Errorf("pid %d is no longer seized: its connections are not nudged", p.PID)
		}
	}
	reuse, err := tcp.EnterRepair(tree)
	_, streams, err2 := tcp.LeaveRepair(tree, reuse)
	return streams, errors.Join(err, err2)
}
