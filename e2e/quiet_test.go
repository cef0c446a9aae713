// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// atOnce is how long after the restored side's first segment a quiet peer's bytes may
// come, beside the round trip: it has to do nothing but to send.
const atOnce = 5 * time.Millisecond

// quietKinds are connections to peers that send of their own accord.
var quietKinds = []struct {
	name, conn string
	wakes      bool // it is idle until it is woken
}{
	{"pushing", "pull,size=8,interval=1ms", false},
	{"larger records", "pull,size=4096,interval=2ms", false},
	{"half-closed", "pull,size=8,interval=1ms,half", false},
	{"both push", "bulk,size=64,interval=2ms", false},
	{"request, reply", "reqrep,interval=1ms", false},
	{"idle, then active", "pull,size=8,interval=1ms,nap", true},
}

// silence is a case of an outage: how long it is, and when the idle peer wakes.
type silence struct {
	length    time.Duration
	meanwhile bool // in the middle of the outage, or else after it
	by        engine
}

func (s silence) String() string {
	return fmt.Sprintf("%s,%s,%s", s.by, s.length, map[bool]string{true: "wakes meanwhile", false: "wakes later"}[s.meanwhile])
}

// TestQuiet dumps peers that are quiet when the freeze comes: their windows are closed
// before, so that nothing is under way, and nothing has to be repeated. When they are told
// that the window is open again they go on at once, however long the outage was.
func TestQuiet(t *testing.T) {
	plain, runc := plainCRIU{}, runtimeEngine("runc")
	cases, runs := []silence{
		{time.Second / 10, false, plain}, // or as long as CRIU takes
		{time.Second / 2, false, plain},
		{2 * time.Second, true, plain},
		{8 * time.Second, false, plain},
		{time.Second, true, runc},
	}, 3
	if os.Getenv(outagesVar) != "" {
		cases, runs = append(cases, silence{30 * time.Second, true, plain}), outageRuns(t, runs)
	}
	eachOutage(t, quietMode, runs, cases, (*outages).measureQuiet, func(t *testing.T, o *outages) {
		for _, c := range cases {
			for _, k := range quietKinds {
				took := o.took[key(c.length, k.name)]
				if len(took) == 0 {
					t.Errorf("%s, %s: nothing was measured", c, k.name)
					continue
				}
				t.Logf("%-20s outage %5s: first bytes after %s (%d connections)", k.name, c.length, spread(took), len(took))
				// The machine may be busy otherwise.
				if slices.Min(took) > atOnce || median(took) > soon {
					t.Errorf("%s, %s: the peer does not go on at once when it is told to", c, k.name)
				}
			}
		}
	})
}

// measureQuiet notes how long each peer took to go on, and checks that none repeated
// anything.
func (o *outages) measureQuiet(t *testing.T, c silence) {
	begin, p := o.dumpQuiet(t, c.by)
	time.Sleep(c.length/2 - time.Since(begin))
	woken := time.Now()
	if c.meanwhile {
		p.client.signal(syscall.SIGUSR2)
	}
	time.Sleep(c.length - time.Since(begin))
	thaw := o.restoreQuiet(t, p)
	t.Logf("from the beginning of the dump to the thaw: %s", thaw.Sub(begin).Round(time.Millisecond))
	if !c.meanwhile {
		woken = time.Now()
		p.client.signal(syscall.SIGUSR2)
	}
	p.awaitTraffic(patience, time.Now())
	p.checkAllBytes()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
	all := p.exchanges(thaw)
	for i, k := range quietKinds {
		for _, id := range []int{2 * i, 2*i + 1} {
			x := all[uint64(id)]
			took, err := x.waited()
			if err != nil || x.resent > 0 {
				t.Errorf("%s, %s, connection %d: %d segments were repeated; %v:\n%s", c, k.name, id, x.resent, err, strings.Join(x.text, "\n"))
			}
			if err != nil {
				continue
			}
			if k.wakes && woken.After(x.open) {
				took = x.data.Sub(woken)
			}
			o.note(key(c.length, k.name), took)
			if took > soon {
				t.Logf("%s, %s, connection %d: after %s:\n%s\n%s", c, k.name, id, took, strings.Join(x.text, "\n"), o.said(t))
			}
		}
	}
}

// dumpQuiet starts a pair, of which the idle peers have fallen asleep, dumps the app and
// moves it to its new namespace.
func (o *outages) dumpQuiet(t *testing.T, by engine) (begin time.Time, p *pair) {
	o.criu.Lock()
	defer o.criu.Unlock()
	var conns []string
	for _, k := range quietKinds {
		conns = append(conns, k.conn)
	}
	p = newPair(t, by, true, conns)
	p.client.signal(syscall.SIGUSR2)
	time.Sleep(100 * time.Millisecond)
	p.from = time.Now()
	p.dumpAndMove(freeze(t))
	return p.from, p
}

// restoreQuiet restores the app, and returns when its network was thawed.
func (o *outages) restoreQuiet(t *testing.T, p *pair) time.Time {
	o.criu.Lock()
	defer o.criu.Unlock()
	if err := p.dumped.engine.restore(p.dumped); err != nil {
		t.Fatalf("restore: %v", err)
	}
	thaw := thawed(t, o.log)
	time.Sleep(100 * time.Millisecond) // with the machine for this one alone
	return thaw
}

// TestQuietBulk has a peer that sends more than 100 MB/s on each connection. In the first
// second after the restore it sends as much as in the second before the dump.
func TestQuietBulk(t *testing.T) {
	const runs, second, share = 3, time.Second, 0.9
	log := t.TempDir() + "/log"
	withNetfreeze(t, settings{policy: "kill", log: log, more: quietMode.config}, plainCRIU{})
	var ratios []float64
	for range runs {
		p := newPair(t, plainCRIU{}, true, []string{"pull,size=262144,interval=2ms"})
		begun, had := time.Now(), p.received()
		poll(t, patience, "bulk", func() error { // a busy machine may have other things to do first
			if p.received() == had {
				return errors.New("nothing has come")
			}
			return nil
		})
		time.Sleep(second - time.Since(begun))
		before := float64(p.received()-had) / time.Since(begun).Seconds()
		p.from = time.Now()
		p.dumpAndMove(freeze(t))
		had = p.received()
		if err := p.dumped.engine.restore(p.dumped); err != nil {
			t.Fatalf("restore: %v", err)
		}
		// From the thaw on, which is no later than this.
		thaw := thawed(t, log)
		time.Sleep(second - time.Since(thaw))
		after := float64(p.received()-had) / time.Since(thaw).Seconds()
		p.checkAllBytes()
		if err := p.packets.since(p.from).stray(); err != nil {
			t.Error(err)
		}
		ratios = append(ratios, after/before)
		for id, x := range p.exchanges(thaw) {
			waited, err := x.waited()
			if err != nil || x.resent > 0 {
				t.Errorf("connection %d: %d segments were repeated; %v:\n%s", id, x.resent, err, strings.Join(x.text, "\n"))
			}
			t.Logf("connection %d: first bytes after %s", id, waited)
		}
		t.Logf("%.0f MB/s before, %.0f MB/s in the first second", before/1e6, after/1e6)
	}
	best := 0.0
	for _, r := range ratios {
		best = max(best, r)
	}
	if best < share {
		t.Errorf("in the first second the peer sent %.2f of what it did before, at best", best)
	}
}

// received returns how many bytes the app has received.
func (p *pair) received() (sum uint64) {
	for _, s := range p.dumped.stats.Snapshots() {
		sum += s.Received
	}
	return sum
}

// TestQuietMany dumps a thousand connections, whose peers are all quiet.
func TestQuietMany(t *testing.T) {
	const conns, length = 1000, 2 * time.Second
	log := t.TempDir() + "/log"
	withNetfreeze(t, settings{policy: "kill", log: log, more: quietMode.config}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, []string{fmt.Sprintf("pull=%d,size=8,interval=50ms", conns/2)})
	p.from = time.Now()
	p.dumpAndMove(freeze(t))
	time.Sleep(length - time.Since(p.from))
	if err := p.dumped.engine.restore(p.dumped); err != nil {
		t.Fatalf("restore: %v", err)
	}
	thaw := thawed(t, log)
	p.awaitTraffic(patience, time.Now())
	p.checkAllBytes()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
	var took []time.Duration
	resent := 0
	for id, x := range p.exchanges(thaw) {
		waited, err := x.waited()
		if err != nil {
			t.Errorf("connection %d: %v:\n%s", id, err, strings.Join(x.text, "\n"))
			continue
		}
		resent += x.resent
		took = append(took, waited)
	}
	if len(took) == 0 {
		t.Fatal("nothing was measured")
	}
	t.Logf("%d connections: first bytes after %s; %d segments were repeated", len(took), spread(took), resent)
	if median(took) > atOnce || resent > 0 {
		t.Errorf("the first bytes come %s after the peer was told to go on, %d segments were repeated", median(took), resent)
	}
}
