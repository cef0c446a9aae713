// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/quiet"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// nudger gets a restore's traffic going again at the thaw, beside CRIU: no
// action waits for it. All that can be done before the thaw is done then.
type nudger struct {
	set        config.Settings
	log        *logrus.Logger
	report     *journal.Journal
	streams    func() []tcp.Stream // what the images say; waits until they are read
	prepared   *prepared           // nil where nothing is to be sent, or it is not known yet from where
	background sync.WaitGroup      // whatever runs beside CRIU
	started    bool
}

// prepared is all that a thaw needs, once ready is closed.
type prepared struct {
	ns      *netns.Namespace // a handle of its own: the transaction may leave the namespace
	whole   bool             // the freeze is of the whole namespace
	times   int              // how often the addresses are announced
	ready   chan struct{}
	sender  *nudge.Sender // nil if it could not be opened
	streams []tcp.Stream
	packets [][]byte
}

// resumes reports whether the peers are told anything at the thaw. Those whom the dump has
// made quiet must be, also where nobody is to be nudged.
func resumes(set config.Settings) bool {
	return set.Resume == config.Nudge || set.Quiet == config.AutoQuiet
}

// newNudger begins to read the images: with many connections that takes a
// while, and it is not needed before the thaw.
func newNudger(env *Env, set config.Settings, cp *criuimg.Checkpoint) *nudger {
	n := &nudger{set: set, log: env.Log, report: env.Report}
	n.streams = sync.OnceValue(func() []tcp.Stream {
		if !resumes(set) {
			return nil
		}
		streams, err := cp.Streams()
		if err != nil {
			n.log.Debugf("not every connection can be nudged: %v", err)
		}
		return nudge.Remote(streams)
	})
	n.background.Go(func() {
		time.Sleep(aside)
		n.streams()
	})
	return n
}

// aside is how long work that nobody waits for is put off after an action: the script
// ends meanwhile, and CRIU, which waits for that, needs the processors.
const aside = 2 * time.Millisecond

// reviveNudger makes the nudger of a restore whose settler was killed, from the images.
// What cannot be read is not needed: the peers' timers do the same, later.
func (r *Restore) reviveNudger() {
	if r.nudger != nil || r.now > restoreFrozen || !resumes(r.set) || r.record().Images == "" {
		return
	}
	cp, err := criuimg.Read(r.record().Images)
	if err != nil {
		r.env.Log.Debug(err)
		return
	}
	r.nudger = newNudger(r.env, r.set, cp)
	r.announceFrozen()
}

// close waits until all was sent, and lets go of everything.
func (n *nudger) close() {
	if n == nil {
		return
	}
	n.background.Wait()
	n.drop()
}

// drop lets go of what was prepared.
func (n *nudger) drop() {
	p := n.prepared
	if p == nil {
		return
	}
	n.prepared = nil
	n.background.Go(func() {
		<-p.ready
		p.sender.Close()
		_ = p.ns.Close()
	})
}

// announceFrozen tells the neighbours of the frozen namespace where its addresses
// are now and finds the way to the peers, so that neither waits for that later: ARP
// and neighbour discovery pass the freeze. Then it prepares what is to be sent at
// the thaw.
func (r *Restore) announceFrozen() {
	n := r.nudger
	times := 0
	if r.record().Scope == record.NetNS { // the host's neighbours know it
		times = r.set.AnnounceCount
	}
	if n == nil || r.freeze.NetNS() == nil || n.started || times == 0 && !resumes(r.set) {
		return
	}
	n.drop() // it was for another namespace, which was not the one
	ns, err := r.freeze.NetNS().Clone()
	if err != nil {
		r.env.Log.Debug(err)
		return
	}
	p := &prepared{ns: ns, whole: r.record().Scope == record.NetNS, times: times, ready: make(chan struct{})}
	n.prepared = p
	peers := r.peers()
	n.background.Go(func() {
		defer close(p.ready)
		time.Sleep(aside)
		var err error
		if p.sender, err = nudge.Open(ns); err != nil {
			n.log.Debug(err)
		} else if times > 0 {
			if err := errors.Join(p.sender.FindAddresses(ns), p.sender.Announce(), p.sender.ProbeNeighbors(ns, peers)); err != nil {
				n.log.Debug(err)
			}
		}
		p.streams = n.streams()
		if err := freeze.KeepClosed(ns, p.streams); err != nil {
			n.log.Debug(err)
		}
		if n.set.Resume == config.Nudge {
			p.packets = nudge.Plan(p.streams, n.set.NudgePackets, false)
		} else {
			p.packets = nudge.Acks(p.streams, nil, 1) // which tell quiet peers that they may send
		}
	})
}

// peers returns the addresses at the other ends of the connections.
func (r *Restore) peers() []netip.Addr {
	var peers []netip.Addr
	for _, c := range r.record().Conns {
		if a := c.Remote.Addr(); !slices.Contains(peers, a) && len(peers) < maxPeers {
			peers = append(peers, a)
		}
	}
	return peers
}

// maxPeers bounds how many peers the way is looked up to: mostly all are behind
// one gateway.
const maxPeers = 256

// lockTime is how long CRIU may take to remove its own lock after we thawed: it
// executes iptables twice where that is what locks.
const lockTime = 2 * time.Second

// startNudge announces and nudges, right after the thaw.
func (r *Restore) startNudge() {
	n := r.nudger
	if n == nil || n.started || n.prepared == nil {
		return
	}
	n.started = true
	p, thawed := n.prepared, time.Now()
	n.background.Go(func() {
		<-p.ready
		if p.sender != nil {
			n.send(p, thawed)
		}
	})
}

// nudgeLater is startNudge for a namespace that stays frozen for another container of
// the pod: when that one lets go of it.
func (r *Restore) nudgeLater() {
	n := r.nudger
	if n == nil || n.started || n.prepared == nil {
		return
	}
	n.started = true
	p, keeper, deadline := n.prepared, r.env.Keeper, r.record().Ends()
	n.background.Go(func() {
		<-p.ready
		if p.sender != nil && keeper.AwaitThaw(p.ns, deadline) {
			n.send(p, time.Now())
		}
	})
}

// send announces the addresses, nudges each connection, and repeats both for a while.
func (n *nudger) send(p *prepared, thawed time.Time) {
	if p.times > 0 {
		if err := p.sender.Announce(); err != nil {
			n.log.Debug(err)
		}
	}
	if err := p.sender.Send(p.packets, lockTime); err != nil {
		n.log.Debugf("nudge: %v", err)
	}
	if count := len(p.streams); count > 0 {
		n.log.Infof("nudged %d connections with %d packets, the last one %v after the thaw",
			count, len(p.packets), time.Since(thawed).Round(time.Microsecond))
	}
	n.report.Sent("nudge", len(p.packets))
	if n.set.Resume == config.Nudge {
		n.retransmit(p)
	}
	n.background.Go(func() { // the dump may have made them quiet, and the first packet may be lost
		sent, err := quiet.End(context.Background(), p.ns, n.toOpen(p))
		if err != nil {
			n.log.Debug(err)
		}
		n.report.Sent("windows", sent)
	})
	for range max(p.times-1, 0) {
		time.Sleep(n.set.AnnounceInterval)
		// Anew: an address may have been tentative, or have come since.
		if err := errors.Join(p.sender.FindAddresses(p.ns), p.sender.Announce()); err != nil {
			n.log.Debug(err)
		}
	}
}

// retransmit repeats what a nudge has sent of our own data, beside all else.
func (n *nudger) retransmit(p *prepared) {
	n.background.Go(func() {
		sent, err := p.sender.Retransmit(p.ns, p.streams, n.set.NudgePackets)
		if err != nil {
			n.log.Debug(err)
		}
		n.report.Sent("nudge, again", sent)
	})
}

// toOpen returns the connections whose peers are to hear once more how large their windows
// are: of those restored the ones whose windows are not kept closed, and what others have
// in the namespace, whose peers the dump has made quiet as well.
func (n *nudger) toOpen(p *prepared) []tcp.Tuple {
	open := slices.DeleteFunc(slices.Clone(p.streams), func(s tcp.Stream) bool { return s.Window == 0 })
	conns := tcp.TuplesOf(open)
	if !p.whole || n.set.Quiet != config.AutoQuiet {
		return conns
	}
	all, err := freeze.Receiving(p.ns)
	if err != nil {
		n.log.Debug(err)
	}
	return append(conns, tcp.Without(all, tcp.TuplesOf(p.streams))...)
}

// forgetFlows removes what connection tracking remembers of the connections to
// come, here and in the host's namespace, which routes for this one. It does so
// beside CRIU: the host's table may be large.
func (r *Restore) forgetFlows() {
	conns, log := r.record().Conns, r.env.Log
	ns, err := r.freeze.NetNS().Clone()
	if err != nil {
		log.Debug(err)
		return
	}
	go func() {
		defer ns.Close()
		time.Sleep(aside)
		if err := forgetFlows(log, ns, conns); err != nil {
			log.Warnf("old entries of connection tracking may be left, which can keep the peers' packets away: %v", code.Any(err))
		}
	}()
}

// forgetFlows does so for connections that images claim to have been in target.
func forgetFlows(log *logrus.Logger, target *netns.Namespace, conns []tcp.Tuple) error {
	forget := func(ns *netns.Namespace, conns []tcp.Tuple) error {
		if len(conns) == 0 {
			return nil
		}
		return ns.Do(func() error {
			n, err := tcp.DeleteConntrack(conns)
			if n > 0 {
				log.Infof("removed %d stale entries of connection tracking in %s", n, ns)
			}
			return err
		})
	}
	here, err := connsOf(target, conns)
	if err != nil {
		return err
	}
	done := forget(target, here)
	host, err := netns.OpenHost()
	if err != nil {
		return errors.Join(done, err)
	}
	defer host.Close()
	if host.ID() == target.ID() {
		return done
	}
	routed, err := connsThrough(host, here)
	return errors.Join(done, err, forget(host, routed))
}
