// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"slices"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// answers reports whether the peers are to be answered for what the settlement has left.
// What has ended waits for a restore only where it has a namespace of its own.
func (d *Dump) answers() bool {
	r := d.record()
	switch d.set.Answer {
	case config.AnswerAuto:
		return r.Phase == record.Held || r.Phase == record.Isolated
	case config.AnswerAlways:
		return r.Phase == record.Held || r.Phase == record.Isolated || r.Phase == record.Ended && r.Scope == record.NetNS
	}
	return false
}

// allowAnswers has the freeze let out answers to the peers, if there are any. Without
// them everything is as safe, but the peers give up after their own time.
func (d *Dump) allowAnswers() {
	if d.record().Answer != 0 || !d.answers() || len(d.answered()) == 0 {
		return
	}
	if err := d.freeze.AllowAnswers(); err != nil {
		d.env.Log.Warn(code.Any(err))
	}
}

// answered returns the connections in the images whose peers can be answered, without
// the bytes that they have sent, which are not needed for that.
func (d *Dump) answered() []tcp.Stream {
	if d.read == nil {
		return nil
	}
	remote := slices.DeleteFunc(nudge.Remote(d.read().streams), func(s tcp.Stream) bool { return !s.CanAck() })
	for i := range remote {
		remote[i].Unacked = nil
	}
	return remote
}

// answering returns what the settler is to answer from now on.
func (d *Dump) answering() *freeze.Answering {
	a := &freeze.Answering{Streams: d.answered(), Frozen: d.record().Since, Ended: d.set.Answer == config.AnswerAlways}
	if began, _ := d.freeze.Times(); !began.IsZero() {
		a.Frozen = began
	}
	a.Quiet = d.quiet.Set()
	if d.set.Resume == config.Nudge {
		a.Nudge = d.set.NudgePackets
	}
	return a
}
