package hooks

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/config"
	"github.com/criu-netfreeze/criu-netfreeze/images"
	"github.com/criu-netfreeze/criu-netfreeze/netns"
	"github.com/criu-netfreeze/criu-netfreeze/resume"
	"github.com/criu-netfreeze/criu-netfreeze/state"
	"github.com/criu-netfreeze/criu-netfreeze/tcp"
)

// resumer gets a restore's traffic going again at the thaw, beside CRIU: no
// action waits for it.
type resumer struct {
	set     config.Settings
	log     *logrus.Logger
	streams chan []tcp.Stream // what the images say, once they are read
	started bool
	done    chan struct{} // closed when all that is to be sent was sent
}

// wait waits until all was sent, if anything is to be sent at all.
func (r *resumer) wait() {
	if r != nil && r.started {
		<-r.done
	}
}

// startResume begins to read the images: with many connections that takes a
// while, and it is not needed before the thaw.
func (t *transaction) startResume(cp *images.Checkpoint) {
	r := &resumer{set: t.set, log: t.log, streams: make(chan []tcp.Stream, 1), done: make(chan struct{})}
	t.resumer = r
	if t.set.Resume != config.Nudge {
		r.streams <- nil
		return
	}
	go func() {
		streams, err := cp.Streams()
		if err != nil {
			r.log.Debugf("not every connection can be nudged: %s", oneLine(err))
		}
		r.streams <- abroad(streams)
	}()
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
// and neighbour discovery pass the freeze.
func (t *transaction) greet() {
	if t.resumer == nil || t.rec.Scope != state.NetNS || t.set.AnnounceCount == 0 {
		return
	}
	ns, peers, log := t.ns, t.peers(), t.log
	go announce(ns, peers, log)
}

// announce makes the namespace known to its neighbours, and them to it.
func announce(ns *netns.Namespace, peers []netip.Addr, log *logrus.Logger) {
	_, err := resume.Announce(ns)
	if err := errors.Join(err, resume.Prime(ns, peers)); err != nil {
		log.Debug(oneLine(err))
	}
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

// resume announces and nudges, right after the thaw.
func (t *transaction) resume() {
	r := t.resumer
	if r == nil || r.started {
		return
	}
	r.started = true
	ns, peers := t.ns, t.peers()
	times := t.set.AnnounceCount
	if t.rec.Scope != state.NetNS {
		times = 0 // the host's neighbours know it
	}
	go func() {
		defer close(r.done)
		if times > 0 {
			announce(ns, peers, r.log)
		}
		streams := <-r.streams
		thawed := time.Now()
		n, err := nudge(ns, streams, r.set.NudgePackets, false)
		if err != nil {
			r.log.Debugf("nudge: %s", oneLine(err))
		}
		if len(streams) > 0 {
			r.log.Infof("nudged %d connections with %d packets in %v", len(streams), n, time.Since(thawed).Round(time.Microsecond))
		}
		again := make(chan struct{})
		go func() {
			defer close(again)
			if _, err := resume.Again(ns, streams, r.set.NudgePackets-n/max(len(streams), 1)); err != nil {
				r.log.Debug(oneLine(err))
			}
		}()
		for range max(times-1, 0) {
			time.Sleep(r.set.AnnounceInterval)
			announce(ns, nil, r.log)
		}
		<-again
	}()
}

// nudge sends each connection's packets, at most limit per connection, and
// returns how many these were. Backed says that our own kernel has waited too,
// and is to repeat what it has sent.
func nudge(ns *netns.Namespace, streams []tcp.Stream, limit int, backed bool) (int, error) {
	var packets [][]byte
	for _, s := range streams {
		packets = append(packets, resume.Packets(s, limit)...)
		if backed {
			packets = append(packets, resume.Own(s, resume.Errors)...)
		}
	}
	return len(packets), resume.Send(ns, packets)
}
