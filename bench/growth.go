// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// sizes are the numbers of connections that growth is measured with.
var sizes = []int{1, 100, 1000, 10000}

// many is the largest of the sizes.
const many = 10000

func connections(n int) string { return count(n, "connection", "s") }

// growth measures how our part of the frozen time grows with the number of
// connections, in both scopes, and how long the silent end takes.
func (b *bench) growth() error {
	netns := &Group{
		Name: "growth-netns", Title: "Our actions while the tasks are stopped, scope netns", Unit: "ms",
		About: "network-lock, post-dump and network-unlock, exec to exit, policy run.",
	}
	conns := &Group{
		Name: "growth-connections", Title: "Our action while the tasks are stopped, scope connections", Unit: "ms",
		About: "post-dump, exec to exit, policy hold: in this scope CRIU calls no other action while the tasks are stopped. " +
			"The connections are frozen before, at pre-dump.",
	}
	for _, n := range sizes {
		progress("growth: %s", connections(n))
		if err := b.growNetNS(netns, n); err != nil {
			return err
		}
		if err := b.growConnections(conns, n); err != nil {
			return err
		}
	}
	for _, g := range []*Group{netns, conns} {
		g.summarize(connections(1))
		b.results.add(g)
	}
	return b.silentEnd()
}

func (b *bench) growNetNS(g *Group, n int) error {
	l, done, err := b.newLoad(shape{1, 1, n}, appSide[:1])
	if err != nil {
		return err
	}
	defer done()
	if err := configure(`policy = "run"`); err != nil {
		return err
	}
	return l.grow(g, n, b.rounds, []string{"pre-dump", "network-lock", "post-dump", "network-unlock"})
}

func (l *load) grow(g *Group, n, rounds int, actions []string) error {
	for round := range rounds + 1 {
		ms, err := l.playDump(nil, actions, func(int) {})
		if err != nil {
			return err
		}
		if round > 0 {
			g.add(connections(n), ms)
		}
	}
	return nil
}

// growConnections puts the tree into the lab's own namespace, which is CRIU's as
// well and plays the host's.
func (b *bench) growConnections(g *Group, n int) (err error) {
	own, err := hostNetNS()
	if err != nil {
		return err
	}
	peer, err := b.newNetNS("peer")
	if err != nil {
		return err
	}
	defer own.remove()
	defer peer.remove() // and with it the interface's other end
	if err := join(own, peer); err != nil {
		return err
	}
	l, err := startLoad(own, peer, shape{1, 1, n}, appSide[:1])
	if err != nil {
		return err
	}
	defer l.remove()
	if err := configure(`policy = "hold"`); err != nil {
		return err
	}
	if err := l.grow(g, n, b.rounds, []string{"pre-dump", "post-dump"}); err != nil {
		return err
	}
	hostFrozen := &Group{
		Name: fmt.Sprintf("host-frozen-%dc", n), Title: "Frozen time in the host's namespace: " + connections(n), Unit: "ms",
		About: "frozen_time in CRIU's stats-dump, scope connections, policy hold.",
	}
	vs := []variant{
		{name: withNothing, lock: "skip"},
		{name: withHook, lock: "skip", scripts: []string{hook}, policy: "hold"},
	}
	rounds := b.rounds
	if n > 1000 {
		rounds = max(3, rounds/3)
	}
	for round := range rounds {
		for _, i := range shuffledOrder(len(vs), round) {
			ms, err := l.measure(vs[i])
			if err != nil {
				return err
			}
			hostFrozen.add(vs[i].name, ms)
		}
	}
	hostFrozen.addedTo(withNothing, "")
	b.results.add(hostFrozen)
	return nil
}

// silentEnd ends trees with many connections, in each of the possible ways.
func (b *bench) silentEnd() error {
	g := &Group{
		Name: "silent-end", Title: "Silent end of " + connections(many), Unit: "ms",
		About: "After the dump, outside the frozen time: until all tasks have ended and their sockets are gone. " +
			"For comparison, the same tree killed by SIGKILL, which sends FIN and RST.",
	}
	for range max(3, b.rounds/3) {
		for _, policy := range []string{"none", "hold", "kill"} {
			progress("silent end: policy %s", policy)
			if err := b.endOnce(g, policy); err != nil {
				return err
			}
		}
	}
	g.summarize("SIGKILL alone")
	b.results.add(g)
	return nil
}

func (b *bench) endOnce(g *Group, policy string) error {
	l, done, err := b.newLoad(shape{1, 1, many}, appSide[:1])
	if err != nil {
		return err
	}
	defer done()
	root, err := proc.Open(l.pid)
	if err != nil {
		return err
	}
	defer root.Close()
	// According to the pidfd, by when every thread has ended and every socket is
	// gone. A parent's wait returns later: the kernel drops its cached entries of
	// /proc/PID in between, of which there are most after a dump has read them.
	ended := make(chan time.Time, 1)
	go func() {
		if root.Ended(patience) {
			ended <- time.Now()
		}
		close(ended)
	}()
	note := func(name string, began time.Time) error {
		at, ok := <-ended
		if !ok {
			return fmt.Errorf("%s: the tree has not ended within %v", name, patience)
		}
		g.add(name, max(0, at.Sub(began).Seconds()*1000))
		return waitUntil("the end of the tree", func() bool { return l.ended.Load() != nil })
	}
	if policy == "none" {
		began := time.Now()
		err := syscall.Kill(l.pid, syscall.SIGKILL)
		return errors.Join(err, note("SIGKILL alone", began))
	}
	v := variant{lock: "skip", scripts: []string{hook}}
	if err := configure(fmt.Sprintf("policy = %q", policy)); err != nil {
		return err
	}
	if _, err := l.dump(v); err != nil {
		return err
	}
	began := time.Now()
	name := "policy kill, from CRIU's end on"
	if policy == "hold" {
		if err := l.awaitSettled(v); err != nil {
			return err
		}
		began, name = time.Now(), "netfreeze kill of a held tree"
		if _, err := command(netfreeze, "kill", fmt.Sprint(l.pid)); err != nil {
			return err
		}
	}
	return errors.Join(note(name, began), l.awaitSettled(v))
}
