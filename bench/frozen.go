// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
)

// The names of the variants that bounds refer to.
const (
	withNothing  = "skip"
	withIPTables = "iptables"
	withNFTables = "nftables"
	withHook     = "skip + netfreeze-hook"
	withHold     = "skip + netfreeze-hook, hold"
	withEmptyC   = "skip + empty C program"
)

// variants are the ways to lock the network that are compared.
func variants() []variant {
	ours := []string{hook}
	return []variant{
		{name: withNothing, lock: "skip"},
		{name: withIPTables, lock: "iptables"},
		{name: withNFTables, lock: "nftables"},
		{name: withEmptyC, lock: "skip", scripts: helper("empty-c")},
		{name: "skip + empty Go program", lock: "skip", scripts: helper("empty-go")},
		{name: withHook, lock: "skip", scripts: ours, policy: "run"},
		{name: withHold, lock: "skip", scripts: ours, policy: "hold"},
		{name: "nftables + netfreeze-hook", lock: "nftables", scripts: ours, policy: "run"},
		{name: "skip + the four scripts (--split)", lock: "skip", scripts: splitScripts(), policy: "run"},
		{name: "skip + shell script with nft", lock: "skip", scripts: helper("freeze.sh")},
	}
}

// shape is the size of the dumped tree. Each of its processes has so many threads; the
// connections are distributed over the processes.
type shape struct{ processes, threads, connections int }

// small is the smallest tree.
var small = shape{1, 1, 1}

func (s shape) String() string {
	threads := ""
	if s.threads > 1 {
		threads = fmt.Sprintf(" with %d threads", s.threads)
	}
	return fmt.Sprintf("%s%s, %s", count(s.processes, "process", "es"), threads, count(s.connections, "connection", "s"))
}

func (s shape) group() string {
	threads := ""
	if s.threads > 1 {
		threads = fmt.Sprintf("-%dt", s.threads)
	}
	return fmt.Sprintf("frozen-%dp%s-%dc", s.processes, threads, s.connections)
}

func count(n int, what, plural string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %s%s", n, what, plural)
}

var shapes = []shape{small, {1, 1, 100}, {1, 1, 1000}, {1, 1, 10000}, {10, 1, 100}, {100, 1, 100}, {1, 1000, 1}}

// frozen compares how long CRIU keeps the tasks stopped.
func (b *bench) frozen() error {
	for _, s := range shapes {
		if !b.shapes.MatchString(s.String()) {
			continue
		}
		rounds := b.rounds
		if s.connections > 1000 {
			rounds = max(3, rounds/3)
		}
		g := &Group{
			Name: s.group(), Title: "Frozen time: " + s.String(), Unit: "ms",
			About: "frozen_time in CRIU's stats-dump, for a dump with leave-running; added to skip without a script, round by round.",
		}
		progress("frozen time: %s, %d rounds", s, rounds)
		if err := b.frozenTree(g, s, rounds); err != nil {
			return err
		}
		g.addedTo(withNothing, withIPTables)
		b.results.add(g)
	}
	return nil
}

func (b *bench) frozenTree(g *Group, s shape, rounds int) error {
	l, done, err := b.newLoad(s, appSide[:1])
	if err != nil {
		return err
	}
	defer done()
	vs := slices.DeleteFunc(variants(), func(v variant) bool { return !b.locks.MatchString(v.name) })
	for _, v := range vs {
		g.Rows = append(g.Rows, Row{Case: v.name})
	}
	for round := -1; round < rounds; round++ { // round -1 warms up
		for _, i := range shuffledOrder(len(vs), round+1) {
			v := vs[i]
			ms, err := l.measure(v)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s, v.name, err)
			}
			if round >= 0 {
				g.add(v.name, ms)
			}
		}
	}
	return nil
}

// measure dumps once with the variant, and returns CRIU's frozen_time in
// milliseconds.
func (l *load) measure(v variant) (float64, error) {
	if v.policy != "" {
		if err := configure(fmt.Sprintf("policy = %q", v.policy)); err != nil {
			return 0, err
		}
	}
	ms, err := l.dump(v)
	if err != nil {
		return 0, err
	}
	return ms, l.awaitSettled(v)
}

// newLoad creates two connected namespaces and a tree in one of them; done
// removes all of it.
func (b *bench) newLoad(s shape, addrs []string) (l *load, done func(), err error) {
	app, err := b.newNetNS("app")
	if err != nil {
		return nil, nil, err
	}
	peer, err := b.newNetNS("peer")
	if err != nil {
		app.remove()
		return nil, nil, err
	}
	drop := func() { app.remove(); peer.remove() }
	if err = join(app, peer); err == nil {
		l, err = startLoad(app, peer, s, addrs)
	}
	if err != nil {
		drop()
		return nil, nil, err
	}
	return l, func() { l.remove(); drop() }, nil
}
