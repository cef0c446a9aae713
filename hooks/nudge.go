package hooks

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// resumer gets a restore's traffic going again at the thaw, beside CRIU: no
// action waits for it. All that can be done before the thaw is done then.
type resumer struct {
	set      config.Settings
	log      *logrus.Logger
	streams  func() []tcp.Stream // what the images say; waits until they are read
	prepared func() prepared     // waits, too; nil where nothing is to be sent, or it is not known yet from where
	started  bool
	done     chan struct{} // closed when all that is to be sent was sent
}

// prepared is all that a thaw needs.
type prepared struct {
	line    *nudge.Line // nil if it could not be opened
	streams []tcp.Stream
	packets [][]byte
}

// wait waits until all was sent, if anything is to be sent at all.
func (r *resumer) wait() {
	if r != nil && r.started {
		<-r.done
	}
}

// startResume begins to read the images: with many connections that takes a
// while, and it is not needed before the thaw.
func (t *transaction) startResume(cp *criuimg.Checkpoint) {
	r := &resumer{set: t.set, log: t.log, done: make(chan struct{})}
	t.resumer = r
	r.streams = sync.OnceValue(func() []tcp.Stream {
		if r.set.Resume != config.Nudge {
			return nil
		}
		streams, err := cp.Streams()
		if err != nil {
			r.log.Debugf("not every connection can be nudged: %s", oneLine(err))
		}
		return abroad(streams)
	})
	go r.streams()
}

// abroad returns the connections whose other end is elsewhere: nobody has to be
// told about those within the namespace, which were frozen together.
func abroad(streams []tcp.Stream) []tcp.Stream {
	ours := map[netip.Addr]bool{}
	for _, s := range streams {
		ours[s.Local.Addr()] = true
	}
	return slices.DeleteFunc(streams, func(s tcp.Stream) bool {
		return s.Remote.Addr().IsLoopback() || ours[s.Remote.Addr()]
	})
}

// forgetFlows removes what connection tracking remembers of the connections to
// come, here and in the host's namespace, which routes for this one. It does so
// beside CRIU: the host's table may be large.
func (t *transaction) forgetFlows() {
	conns, log := t.rec.Conns, t.log
	forget := func(ns *netns.Namespace) {
		err := ns.Do(func() error {
			n, err := tcp.Forget(conns)
			if n > 0 {
				log.Infof("removed %d stale entries of connection tracking in %s", n, ns)
			}
			return err
		})
		if err != nil {
			log.Debug(oneLine(err))
		}
	}
	ns := t.ns
	go func() {
		forget(ns)
		if host, err := netns.OpenHost(); err == nil {
			forget(host)
			_ = host.Close()
		}
	}()
}

// greet tells the neighbours of the frozen namespace where its addresses are
// now and finds the way to the peers, so that neither waits for that later: ARP
// and neighbour discovery pass the freeze. Then it prepares what is to be sent
// at the thaw.
func (t *transaction) greet() {
	r := t.resumer
	if r == nil || t.ns == nil || r.started || !t.announces() && r.set.Resume != config.Nudge {
		return
	}
	if old := r.prepared; old != nil { // of another namespace, that was not the one
		go func() { old().line.Close() }()
	}
	ns, peers, greets := t.ns, t.peers(), t.announces()
	r.prepared = sync.OnceValue(func() (p prepared) {
		var err error
		if p.line, err = nudge.Open(ns); err != nil {
			r.log.Debug(oneLine(err))
		}
		if p.line != nil && greets {
			if err := errors.Join(p.line.Look(ns), p.line.Announce(), p.line.Prime(ns, peers)); err != nil {
				r.log.Debug(oneLine(err))
			}
		}
		p.streams = r.streams()
		p.packets = nudges(p.streams, r.set.NudgePackets, false)
		return p
	})
	go r.prepared()
}

// acknowledge repeats, after a dump, the last acknowledgement of each connection
// in the images. The freeze may have dropped one that the kernel had put off.
// With this the peers know how far their bytes have come, and we know what they
// wait for: the errors of a nudge must name it exactly. It has CRIU's mark, with
// which it passes the freeze.
func (t *transaction) acknowledge(cp *criuimg.Checkpoint) error {
	if t.set.Resume != config.Nudge || t.ns == nil {
		return nil
	}
	streams, err := cp.Streams()
	if err != nil {
		t.log.Debug(oneLine(err))
	}
	acks := nudge.Acks(abroad(streams))
	if len(acks) == 0 {
		return nil
	}
	line, err := nudge.Open(t.ns)
	if err != nil {
		return err
	}
	defer line.Close()
	if err := line.Mark(rules.Mark); err != nil {
		return err
	}
	return line.Send(acks, 0)
}

// announces tells whether the namespace is to be made known to its neighbours.
// The host's know it.
func (t *transaction) announces() bool {
	return t.set.AnnounceCount > 0 && t.rec.Scope == record.NetNS
}

// peers returns the addresses at the other ends of the connections.
func (t *transaction) peers() []netip.Addr {
	var peers []netip.Addr
	for _, c := range t.rec.Conns {
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

// resume announces and nudges, right after the thaw.
func (t *transaction) resume() {
	r := t.resumer
	if r == nil || r.started || r.prepared == nil {
		return
	}
	r.started = true
	ns, times, thawed := t.ns, 0, time.Now()
	if t.announces() {
		times = t.set.AnnounceCount
	}
	go func() {
		defer close(r.done)
		p := r.prepared()
		if p.line == nil {
			return
		}
		defer p.line.Close()
		if times > 0 {
			if err := p.line.Announce(); err != nil {
				r.log.Debug(oneLine(err))
			}
		}
		if err := p.line.Send(p.packets, lockTime); err != nil {
			r.log.Debugf("nudge: %s", oneLine(err))
		}
		if n := len(p.streams); n > 0 {
			r.log.Infof("nudged %d connections with %d packets, the last one %v after the thaw", n, len(p.packets), time.Since(thawed).Round(time.Microsecond))
		}
		again := make(chan struct{})
		go func() {
			defer close(again)
			if _, err := p.line.Again(ns, p.streams, r.set.NudgePackets-len(p.packets)/max(len(p.streams), 1)); err != nil {
				r.log.Debug(oneLine(err))
			}
		}()
		for range max(times-1, 0) {
			time.Sleep(r.set.AnnounceInterval)
			// Anew: an address may have been tentative, or have come since.
			if err := errors.Join(p.line.Look(ns), p.line.Announce()); err != nil {
				r.log.Debug(oneLine(err))
			}
		}
		<-again
	}()
}

// urgent is how many packets of each connection go before the rest of any: the
// acknowledgement and one error, which is enough for every other peer (or, where
// the peer may know of less than was received, two errors for that).
const urgent = 2

// nudges builds each connection's packets, at most limit to its peer, in the order
// in which they are to be sent. Backed says that our own kernel has waited too, and
// is to repeat what it has sent: it gets a few errors more, which go nowhere else.
func nudges(streams []tcp.Stream, limit int, backed bool) [][]byte {
	var first, rest [][]byte
	for _, s := range streams {
		packets := nudge.Packets(s, limit)
		if backed {
			packets = append(packets, nudge.Own(s, nudge.Errors)...)
		}
		n := min(urgent, len(packets))
		first, rest = append(first, packets[:n]...), append(rest, packets[n:]...)
	}
	return append(first, rest...)
}
