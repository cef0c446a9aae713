// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// wholeOutage measures from the dump's start to the first byte after a restore that begins
// as soon as the tree has gone. CRIU ends the tree, with the hook or without.
func (b *bench) wholeOutage() error {
	known, err := knownModes()
	if err != nil {
		return err
	}
	type way struct {
		variant
		lines []string
	}
	ways := []way{
		{variant{name: "CRIU's iptables lock, no hook", lock: "iptables", ends: true}, nil},
		{variant{name: "CRIU's nftables lock, no hook", lock: "nftables", ends: true}, nil},
	}
	for _, m := range known {
		ways = append(ways, way{variant{name: "netfreeze-hook, " + m.title, lock: "skip", scripts: []string{hook}, ends: true}, m.lines})
	}
	g := &Group{
		Name: "outage-whole", Title: "The whole outage", Unit: "ms",
		About: "From the start of criu dump to the first byte after criu restore, which follows at once. CRIU ends the tree.",
	}
	progress("the whole outage: %d rounds", b.rounds)
	for round := range b.rounds {
		for _, i := range shuffledOrder(len(ways), round) {
			w := ways[i]
			if err := configure(w.lines...); err != nil {
				return err
			}
			took, err := b.dumpAndRestore(w.variant)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			for _, ms := range took {
				g.add(w.name, ms)
			}
		}
	}
	g.summarize(ways[1].name)
	b.results.add(g)
	return nil
}

// dumpAndRestore returns, in milliseconds, how long each connection stood still.
func (b *bench) dumpAndRestore(v variant) (took []float64, err error) {
	l, done, err := b.newPeerLoad(connsPerCase, peer{})
	if err != nil {
		return nil, err
	}
	defer done()
	var pushers []*pusher
	for _, c := range l.conns {
		pushers = append(pushers, newPusher(c))
	}
	time.Sleep(10 * tick)
	begun := monotonic()
	if _, err := l.dump(v); err != nil {
		return nil, err
	}
	if err := waitUntil("the end of the dumped tree", func() bool { return l.ended.Load() != nil && !exists(l.pid) }); err != nil {
		return nil, err
	}
	for _, t := range pushers {
		err = errors.Join(err, t.watch())
	}
	if err := errors.Join(err, l.restore(v)); err != nil {
		return nil, err
	}
	for _, t := range pushers {
		if err := waitUntil("traffic", func() bool { return t.first.Load() != 0 }); err != nil {
			return nil, err
		}
		took = append(took, float64(t.first.Load()-begun)/1e6)
	}
	return took, l.awaitSettled(v)
}

// bulk measures what a peer that sends as fast as it can gets through in the second after
// the thaw.
func (b *bench) bulk() error {
	known, err := knownModes()
	if err != nil {
		return err
	}
	rounds := max(3, b.rounds/3)
	progress("bulk: %d rounds", rounds)
	for _, length := range []time.Duration{300 * time.Millisecond, 3 * time.Second} {
		g := &Group{
			Name: "bulk-" + length.String(), Title: fmt.Sprintf("A bulk transfer to the restored program, outage %s", length), Unit: "MB",
			About: "What gets through in the first second after network-unlock, and in the second before the dump.",
		}
		const before = "in a second before"
		for round := range rounds {
			for _, i := range shuffledOrder(len(known), round) {
				had, got, err := b.bulkOnce(known[i], length)
				if err != nil {
					return fmt.Errorf("bulk, %s: %w", known[i].title, err)
				}
				g.add(before, had)
				g.add(known[i].title, got)
			}
		}
		g.summarize(before)
		b.results.add(g)
	}
	return nil
}

// bulkOnce returns how many MB got through in the second before the dump, and in the first
// after the thaw.
func (b *bench) bulkOnce(m mode, length time.Duration) (before, after float64, err error) {
	l, done, err := b.newPeerLoad(1, peer{})
	if err != nil {
		return 0, 0, err
	}
	defer done()
	stamps, script, err := newStamp()
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(filepath.Dir(stamps))
	v := variant{lock: "skip", scripts: []string{hook, script}, ends: true}
	if err := configure(m.lines...); err != nil {
		return 0, 0, err
	}
	t := &pusher{conn: l.conns[0].(*net.TCPConn)}
	go func() {
		block := make([]byte, 256<<10)
		for {
			if _, err := t.conn.Write(block); err != nil {
				return
			}
		}
	}()
	time.Sleep(time.Second / 2) // until its window is as large as it gets
	from, err1 := t.acknowledged()
	begun := time.Now()
	time.Sleep(time.Second)
	to, err2 := t.acknowledged()
	before = float64(to-from) / 1e6 / time.Since(begun).Seconds()
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, err
	}
	begun = time.Now()
	if _, err := l.dump(v); err != nil {
		return 0, 0, err
	}
	if err := waitUntil("the end of the dumped tree", func() bool { return l.ended.Load() != nil && !exists(l.pid) }); err != nil {
		return 0, 0, err
	}
	time.Sleep(length - time.Since(begun))
	from, err1 = t.acknowledged()
	if err := errors.Join(err1, l.restore(v)); err != nil {
		return 0, 0, err
	}
	unlock, _, err := readStamps(stamps)
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(time.Duration(unlock + int64(time.Second) - monotonic()))
	to, err1 = t.acknowledged()
	passed := time.Duration(monotonic() - unlock).Seconds()
	return before, float64(to-from) / 1e6 / passed, errors.Join(err1, l.awaitSettled(v))
}

// stall measures what a dump costs a program that is left running: for how long it gets
// nothing, before the freeze and in all.
func (b *bench) stall() error {
	known, err := knownModes()
	if err != nil {
		return err
	}
	for _, oneWay := range []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond} {
		far := peer{oneWay: oneWay}
		before := &Group{
			Name: "stall-before-" + oneWay.String(), Title: fmt.Sprintf("Standing still before the freeze, round trip %s", 2*oneWay), Unit: "ms",
			About: "From the last byte that the program has got to network-lock.",
		}
		whole := &Group{
			Name: "stall-whole-" + oneWay.String(), Title: fmt.Sprintf("Standing still in all, round trip %s", 2*oneWay), Unit: "ms",
			About: "From that byte to the next one. The tree goes on where it is, policy run.",
		}
		progress("stall: round trip %s, %d rounds", 2*oneWay, b.rounds)
		for round := range b.rounds {
			for _, i := range shuffledOrder(len(known), round) {
				if err := b.stallOnce(known[i], far, before, whole); err != nil {
					return fmt.Errorf("stall, %s: %w", known[i].title, err)
				}
			}
		}
		for _, g := range []*Group{before, whole} {
			g.summarize("")
			b.results.add(g)
		}
	}
	return nil
}

// stallOnce dumps once, with a peer that pushes and one that waits for each echo.
func (b *bench) stallOnce(m mode, far peer, before, whole *Group) error {
	l, done, err := b.newPeerLoad(2, far)
	if err != nil {
		return err
	}
	defer done()
	stamps, script, err := newStamp()
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(stamps))
	if err := configure(append([]string{`policy = "run"`}, m.lines...)...); err != nil {
		return err
	}
	pushing, echoing := &progressing{}, &progressing{}
	t := newPusher(l.conns[0])
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { pushing.poll(t, stop) })
	all.Go(func() { echoing.echo(l.conns[1], stop) })
	time.Sleep(20*far.oneWay + 10*tick)
	// Called before the hook at network-lock.
	v := variant{lock: "skip", scripts: []string{hook, script}, policy: "run"}
	_, err = l.dump(v)
	over := monotonic() + 4*int64(far.oneWay)
	if err == nil {
		err = waitUntil("traffic", func() bool { return pushing.last.Load() > over && echoing.last.Load() > over })
	}
	close(stop)
	all.Wait()
	if err := errors.Join(err, l.awaitSettled(v)); err != nil {
		return err
	}
	lock, err := readStamp(stamps, "network-lock")
	if err != nil {
		return err
	}
	for _, p := range []struct {
		name string
		*progressing
	}{{"pushing", pushing}, {"request and reply", echoing}} {
		// The program has got a byte one way before the peer sees that.
		last, next := p.around(lock + int64(far.oneWay))
		if last == 0 || next == 0 {
			return fmt.Errorf("%s: nothing got through before or after the freeze", p.name)
		}
		before.add(p.name+", "+m.title, float64(lock+int64(far.oneWay)-last)/1e6)
		whole.add(p.name+", "+m.title, float64(next-last)/1e6)
	}
	return nil
}

// progressing is when something got through, by the monotonic clock.
type progressing struct {
	at   []int64
	last atomic.Int64
}

func (p *progressing) note() {
	now := monotonic()
	p.at = append(p.at, now)
	p.last.Store(now)
}

// poll watches how much of what a peer pushes is acknowledged.
func (p *progressing) poll(t *pusher, stop <-chan struct{}) {
	for known := uint64(0); !closed(stop); time.Sleep(200 * time.Microsecond) {
		n, err := t.acknowledged()
		if err != nil {
			return
		}
		if n > known {
			known = n
			p.note()
		}
	}
}

// echo sends byte after byte, each when the one before has come back.
func (p *progressing) echo(c net.Conn, stop <-chan struct{}) {
	for !closed(stop) {
		if echo(c) != nil {
			return
		}
		p.note()
		time.Sleep(time.Millisecond)
	}
}

func closed(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// around returns the last time before a moment and the first one after it, 0 for none.
func (p *progressing) around(moment int64) (last, next int64) {
	for _, at := range p.at {
		if at > moment {
			return last, at
		}
		last = at
	}
	return last, 0
}
