// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/answer"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/quiet"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
)

// lastAnswer is how long before the end of a freeze's time to live the last answer
// leaves: a rule of iptables ends by the wall clock, in whole seconds.
const lastAnswer = 2 * time.Second

// answerer answers as long as a record says so. All its methods may be called on nil,
// which never answers.
type answerer struct {
	Answering
	keeper *Keeper
	log    *logrus.Logger

	last    *record.Record     // as it was looked at last
	current context.CancelFunc // ends what runs; nil if nothing does
	done    chan error         // gets its end
	begun   bool               // something was answered, or may have been
	failed  bool               // it does not work here
}

func (k *Keeper) answerer(what *Answering, log *logrus.Logger) *answerer {
	if what == nil {
		return nil
	}
	return &answerer{Answering: *what, keeper: k, log: log}
}

// wanted reports whether answers may leave for the record, as far as it says. They go on
// when a hold is ended: a peer with data in flight that has been answered gives up sooner
// than another one, after 4 minutes (tcp_rtx_probe0_timed_out in net/ipv4/tcp_timer.c).
func (a *answerer) wanted(r *record.Record) bool {
	if r.Answer == 0 || r.Left() < lastAnswer {
		return false
	}
	return r.Phase == record.Held || r.Phase == record.Isolated || r.Phase == record.Ended && (a.Ended || a.begun)
}

// look begins to answer, or ends that, as the record asks for.
func (a *answerer) look(r *record.Record) {
	if a == nil {
		return
	}
	a.last = r
	if a.current != nil {
		select {
		case err := <-a.done:
			a.ended(err)
		default:
		}
	}
	switch wanted := a.wanted(r); {
	case !wanted:
		a.stop()
	case a.current == nil && !a.failed:
		if err := a.start(r); err != nil {
			a.ended(err)
		}
	}
}

// start begins to answer in the record's namespace, which stays there as long as that
// goes on.
func (a *answerer) start(r *record.Record) error {
	ns, err := find(r)
	if err != nil {
		return err
	}
	a.begun = true
	ctx, cancel := context.WithCancel(context.Background())
	a.current, a.done = cancel, make(chan error, 1)
	table := answer.New(a.Streams, a.Quiet, a.Frozen, time.Now())
	g := &gate{answerer: a, table: table, ns: ns, id: r.ID, mark: r.Answer}
	a.log.Debugf("the peers of %d connections of %s are answered", table.Len(), r.Describe())
	go func() {
		defer ns.Close()
		sent, err := table.Run(ctx, ns, g.mark, g.pass)
		a.log.Debugf("the peers of %s got %d answers", r.Describe(), sent)
		a.done <- err
	}()
	return nil
}

// stop ends answering. None leaves once it has returned.
func (a *answerer) stop() {
	if a == nil || a.current == nil {
		return
	}
	a.current()
	a.ended(<-a.done)
}

// ended notes the end, and says once why there will be no more answers.
func (a *answerer) ended(err error) {
	a.current = nil
	if err != nil {
		a.failed = true
		a.log.Warn(code.Any(fmt.Errorf("the peers are not answered any more, so that they give up after their own time: %w", err)))
	}
}

// resume opens the windows of peers that were answered, once somebody has thawed the tasks.
// Where these ran on nobody else knows where the connections stood, and their peers would
// wait for their timers. The
// sequence numbers may be old by now, which harms nobody: then the peer knows more, and
// drops them. It returns false while the freeze is in force.
func (a *answerer) resume() bool {
	if a == nil || a.last == nil || !a.last.Alive() || a.last.Phase != record.Isolated && a.last.Phase != record.Held {
		return true
	}
	a.stop()
	ns, err := find(a.last)
	if err != nil {
		return true // it has gone, and nobody waits
	}
	defer ns.Close()
	if left, err := a.keeper.timeLeft(ns, a.last); err == nil && left > 0 {
		return false
	}
	if a.last.Phase == record.Isolated { // the thaw of a hold does it itself
		keepClosed(a.Streams, a.last.InFlight)
		sender, err := nudge.Open(ns)
		if err == nil {
			err = sender.Send(a.resuming(), 0)
			sender.Close()
		}
		if err != nil {
			a.log.Debugf("not every peer was told to go on: %v", err)
		}
	}
	a.repeat(ns)
	return true
}

// repeat has the connections tell their peers once more how large their windows are, where
// these do not send: the packet that has told them may be lost.
func (a *answerer) repeat(ns *netns.Namespace) {
	if !a.last.Quiet {
		return
	}
	conns := tcp.Without(tcp.TuplesOf(a.Streams), a.last.InFlight)
	if _, err := quiet.End(context.Background(), ns, conns); err != nil {
		a.log.Debug(err)
	}
}

// ownErrors is how many errors our own kernel gets about what it has sent in vain since
// the dump: each halves the time that it still wants to wait.
const ownErrors = 6

// resuming returns what resume sends. Of what the tasks have sent since the dump the
// images know nothing, but the oldest byte of it is the next one of the images.
func (a *answerer) resuming() (packets [][]byte) {
	if a.Nudge > 0 {
		packets = nudge.Plan(a.Streams, a.Nudge, true)
	}
	for _, s := range a.Streams {
		if a.Nudge == 0 {
			packets = append(packets, wire.ACK(s))
		} else if s.SndUna == s.SndNxt {
			us := s.Local.Addr()
			for range ownErrors {
				packets = append(packets, wire.Unreachable(us, us, s.Local, s.Remote, s.SndUna))
			}
		}
	}
	return packets
}

// gate lets answers out as long as a record wants them and its freeze is in force.
type gate struct {
	*answerer
	table *answer.Table
	ns    *netns.Namespace
	id    string // the record's
	mark  uint32

	seen   os.FileInfo // the record's file, when it was read last
	record *record.Record
	looked time.Time // when the rules were looked at last
	noted  time.Time // when the connections in flight were written down last
}

const (
	// gatePatience is how long answers wait for somebody who changes the freeze, or the
	// record. Then they are not sent: the peers ask again.
	gatePatience = 20 * time.Millisecond
	// rulesInterval is how often the gate looks whether the rules are still there, which
	// somebody may have taken away without a word.
	rulesInterval = 5 * time.Second
	// noteInterval is how often the record is written for connections in flight.
	noteInterval = 500 * time.Millisecond
)

// pass implements answer.Gate.
func (g *gate) pass(send func()) bool {
	l, err := acquire(g.ns, gatePatience)
	if err != nil {
		return true
	}
	defer l.Release()
	if !g.open() {
		return false
	}
	g.note()
	send()
	return true
}

// note writes down which peers have data in flight, for whoever thaws. The caller has the
// namespace's lock.
func (g *gate) note() {
	more := tcp.Without(g.table.InFlight(), g.record.InFlight) // another table may have noted some
	if len(more) == 0 || time.Since(g.noted) < noteInterval {
		return
	}
	g.noted = time.Now()
	g.record.InFlight = append(g.record.InFlight, more...)
	if err := g.record.Save(); err != nil {
		g.log.Debug(err)
	}
}

// open reports whether answers may leave. The caller has the namespace's lock.
func (g *gate) open() bool {
	info, err := record.Stat(g.id)
	if err != nil {
		return false
	}
	if g.seen == nil || !os.SameFile(info, g.seen) || !info.ModTime().Equal(g.seen.ModTime()) {
		if g.record, err = record.Load(g.id); err != nil {
			return false
		}
		g.seen = info
	}
	if g.record.Answer != g.mark || !g.wanted(g.record) {
		return false
	}
	if time.Since(g.looked) < rulesInterval {
		return true
	}
	left, err := g.keeper.timeLeft(g.ns, g.record)
	if err == nil {
		g.looked = time.Now()
	}
	return err == nil && left > 0
}
