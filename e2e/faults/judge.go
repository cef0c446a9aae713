// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// answer is what the caller of a dump was told.
type answer string

// The answers.
const (
	succeeded answer = "the dump succeeded"
	failed    answer = "the dump failed"
	unknown   answer = "nobody was told how the dump ended"
)

// state is what is seen of a tree and of its network.
type state string

// The states. Only the first five are ever promised.
const (
	runs        state = "runs"                      // with its network
	isolated    state = "runs without network"      //
	stopped     state = "stopped, without network"  //
	gone        state = "gone, without network"     //
	stoppedOpen state = "stopped, with its network" //
	goneOpen    state = "gone, with its network"    //
	mixed       state = "neither stopped nor running"
)

// look observes a tree.
func (t *tree) look() state {
	if zombie(t.pid) {
		if answers(t.pod.peer) {
			return goneOpen
		}
		return gone
	}
	tasks := treeOf(t.pid)
	halted := 0
	for _, pid := range tasks {
		if s, _ := procState(pid); s == 'T' || s == 't' {
			halted++
		}
	}
	before, from := t.stats.Ticks(), time.Now()
	for time.Since(from) < 100*time.Millisecond && t.stats.Ticks() == before {
		time.Sleep(5 * time.Millisecond)
	}
	moves, open := t.stats.Ticks() != before, answers(t.pod.peer)
	switch {
	case moves && halted == 0 && open:
		return runs
	case moves && halted == 0:
		return isolated
	case !moves && halted > 0 && open:
		return stoppedOpen
	case !moves && halted > 0:
		return stopped
	}
	return mixed
}

// await looks until the tree is in one of the wanted states.
func (t *tree) await(limit time.Duration, wanted ...state) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		t.state = t.look()
		if slices.Contains(wanted, t.state) {
			if len(wanted) == 1 {
				return true
			}
			// It may be on its way from one of them to another.
			time.Sleep(100 * time.Millisecond)
			if t.look() == t.state {
				return true
			}
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// classify says what the caller was told. Where it was killed, or CRIU after its work
// was done, both outcomes are right.
func (r *run) classify(a *attempt) answer {
	done := a.succeeded()
	switch {
	case a.exit == 0:
		return succeeded
	case a.exit == -1, done, a.exit == 128+int(unix.SIGKILL), a.exit == 128+int(unix.SIGTERM), r.engine == runc && r.kills():
		// A CRIU that is killed after post-dump may have been as good as done.
		if _, committed := a.at("after:post-dump"); committed || done {
			return unknown
		}
	}
	return failed
}

// kills reports whether a fault of the run ends CRIU or its callers.
func (r *run) kills() bool {
	return r.criuKilled.Load() || slices.ContainsFunc(r.combos(), func(c combo) bool {
		return strings.HasPrefix(c.fault.name, "kill ") || strings.HasPrefix(c.fault.name, "term ")
	})
}

// settledAs is what the policy makes of a dump that succeeded.
var settledAs = map[string]state{run_: runs, isolate: isolated, hold: stopped, kill: gone, killed: gone}

// wanted lists the states that are promised after a dump.
func (r *run) wanted(t *tree) (all []state) {
	if t.told != failed {
		all = append(all, settledAs[r.policy])
	}
	if t.told != succeeded {
		all = append(all, runs)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.thawed {
		all = append(all, runs)
		if slices.Contains(all, gone) {
			all = append(all, goneOpen) // it had ended before
		}
	}
	if r.ended {
		all = append(all, gone)
	}
	return all
}

// judgeDump judges what has become of a tree after its dump.
func (r *run) judgeDump(t *tree) {
	a := t.dumped
	t.told = r.classify(a)
	wanted := r.wanted(t)
	r.logf("%s: %s; it must be: %v", t.id, t.told, wanted)
	frozen, armed := a.at("after:network-lock")
	reached := t.await(r.limit(), wanted...)
	r.logf("%s: %s", t.id, t.state)
	if r.interrupted(t, armed) {
		r.excuse("CRIU was killed while it had the tasks' sockets in repair mode, or its own code in the tasks")
		if t.state == goneOpen {
			return // a task that goes on in CRIU's code can crash
		}
	}
	if r.ranOn(t, a) {
		r.breaks("nothing runs after the state that was dumped",
			"policy %s, %s: %s has ticked %d times since", r.policy, t.told, t.id, t.stats.Ticks()-a.ticks)
	}
	if reached && (t.told == succeeded || t.state != runs) {
		end := time.Now()
		if r.policy == run_ || t.state == runs {
			end, _ = a.at("before:network-unlock")
		}
		r.silent(t.pod, frozen, armed, end)
	}
	if !reached && !r.harms() {
		r.breaks("a dump ends as its policy or its failure asks", "%s, policy %s: %s is %s, not %v", t.told, r.policy, t.id, t.state, wanted)
		return
	}
	if t.state != runs && t.state != goneOpen && t.state != stoppedOpen && !r.has(clearsDir) {
		r.listed(t)
	}
	if !reached {
		r.outlive(t, wanted)
	}
}

// interrupted reports whether CRIU was killed while it worked on the tasks: the kernel
// lets them go on at once, in whatever state they and their sockets are.
func (r *run) interrupted(t *tree, armed bool) bool {
	if !r.criuKilled.Load() || !armed || t.told == succeeded {
		return false
	}
	_, committed := t.dumped.at("after:post-dump")
	stops := r.policy == hold || r.policy == kill || r.policy == killed
	return !committed || !stops
}

// ranOn reports whether a tree has run on although its dump counts.
func (r *run) ranOn(t *tree, a *attempt) bool {
	r.mu.Lock()
	asked := r.thawed || r.ended
	r.mu.Unlock()
	ends := r.policy == hold || r.policy == kill || r.policy == killed
	return t.told == succeeded && ends && !asked && a.ticks > 0 && t.stats.Ticks() != a.ticks
}

// silent notes that nothing may have left a pod from when it was frozen.
func (r *run) silent(p *pod, frozen time.Time, armed bool, to time.Time) {
	if !armed || to.IsZero() {
		return
	}
	if end := frozen.Add(r.ttl()); end.Before(to) {
		to = end
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.thawed && r.struckAt.Before(to) { // by a command that was part of the fault
		to = r.struckAt
	}
	r.windows = append(r.windows, window{p, frozen, to})
}

// listed checks that netfreeze status tells of what is not as usual.
func (r *run) listed(t *tree) {
	out, err := r.command("status", "-o", "json")
	if err != nil || strings.Contains(out, fmt.Sprint(t.pod.inode)) || strings.Contains(out, fmt.Sprintf(": %d", t.pid)) {
		return
	}
	if t.look() == t.state { // and not thawed in the meantime
		r.breaks("status tells what is frozen", "%s is %s, and status says %s", t.id, t.state, strings.TrimSpace(out))
	}
}

// outlive waits until the kernel ends a freeze that nothing of ours is left to end,
// and has netfreeze thaw do the rest.
func (r *run) outlive(t *tree, wanted []state) {
	r.soothe()
	last := r.begun
	for _, when := range t.dumped.times {
		if when.After(last) {
			last = when
		}
	}
	over := time.Until(last.Add(r.ttl() + 2500*time.Millisecond)) // iptables counts whole seconds
	if t.await(max(over, 0), slices.Concat(wanted, []state{runs, stoppedOpen, goneOpen})...) {
		r.logf("%s: %s", t.id, t.state)
	} else if r.excused == "" || !answers(t.pod.peer) { // what CRIU itself has left may be neither
		r.breaks("the kernel ends a freeze when its time to live is over", "%s is still %s after %s", t.id, t.state, r.ttl())
	}
	r.outlived = true
	if t.state == goneOpen && t.told == failed && r.excused == "" {
		r.breaks("a dump that fails leaves the container running", "%s is %s", t.id, t.state)
	}
}

// soothe ends what a fault has put in the way, as an administrator would before asking
// for a thaw.
func (r *run) soothe() {
	r.calm.Store(true)
	mendDir()
	mendIptables()
	r.unwrap()
}

// judgeBack judges that a pod is as if nobody had touched it: trees run, connections
// carry traffic and have lost nothing, rules are as they were.
func (r *run) judgeBack(p *pod) {
	now := time.Now()
	limit := r.limit()
	if r.outlived || r.starved() {
		limit = patience // nobody was there to nudge the peers, whose timers have backed off
	}
	if r.policy == isolate {
		// A thaw nudges connections that a dump has left in repair mode, and these are
		// not: their timers are left to themselves, and wait for at most as long again.
		limit = max(limit, now.Sub(r.begun)+r.limit())
	}
	for _, t := range p.trees {
		for _, pid := range treeOf(t.pid) {
			if n, err := repaired(pid); err == nil && n > 0 {
				r.breaks("no socket stays in repair mode", "%d sockets of process %d of %s", n, pid, t.id)
			}
		}
		if r.excused != "" {
			continue
		}
		if err := wait(limit, func() error { return t.carries(now) }); err != nil {
			r.breaks("connections go on", "%s: %v; it is %s", t.id, err, t.look())
		}
		t.quiet()
		if err := wait(limit, t.settled); err != nil {
			r.breaks("no byte is lost or doubled", "%s: %v", t.id, err)
		}
	}
	err := wait(r.limit(), func() error {
		rules, err := ruleset(p.app)
		if err == nil && rules != p.rules {
			err = fmt.Errorf("%s has\n%s\nand had\n%s", p.app, rules, p.rules)
		}
		return err
	})
	if err != nil {
		r.breaks("no rules are left behind", "%v", err)
	}
	p.packets.stop()
	if r.excused == "" {
		r.judgePackets(p)
	}
}

// starved reports whether a program of ours may have lacked what it needs for a nudge.
func (r *run) starved() bool {
	return slices.ContainsFunc(r.combos(), func(c combo) bool {
		return strings.HasPrefix(c.fault.name, "limit ") || strings.HasPrefix(c.fault.name, "inject ")
	})
}

// judgePackets judges what the peer has seen.
func (r *run) judgePackets(p *pod) {
	// A client that could not wait for its connection, on a slow machine, has opened
	// another one, and resets the first when its answer comes.
	ours := map[uint16]bool{}
	for _, t := range p.trees {
		for _, c := range t.peers.Snapshots() {
			ours[c.LocalPort] = true
		}
	}
	resets := 0
	for _, packet := range p.packets.packets() {
		s := packet.parse()
		if packet.at.Before(p.from) {
			continue
		}
		if s.tcp && (s.fin || s.rst) && (ours[s.src] || ours[s.dst]) {
			if resets++; resets <= 3 {
				r.breaks("the peer sees no FIN and no RST", "%.4f s: %s", packet.at.Sub(r.begun).Seconds(), s)
			}
		}
		if !s.fromApp || s.payload == 0 && !s.unreachable {
			continue
		}
		for _, w := range r.windows {
			if w.pod == p && packet.at.After(w.from) && packet.at.Before(w.to) {
				r.breaks("nothing leaves a frozen namespace", "%.4f s, frozen from %.4f to %.4f: %s", packet.at.Sub(r.begun).Seconds(),
					w.from.Sub(r.begun).Seconds(), w.to.Sub(r.begun).Seconds(), s)
				return
			}
		}
	}
}
