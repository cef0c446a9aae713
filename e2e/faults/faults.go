// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// mark says what a fault does to the judgement.
type mark int

const (
	clearsDir  mark = 1 << iota // the state directory loses what we know: thaw may refuse
	asks                        // somebody asks for a thaw or a kill meanwhile
	slows                       // everything may take longer
	shortTTL                    // the time to live is over before the dump
	forks                       // the tree forks while it is dumped
	siblings                    // two trees in one namespace
	many                        // many dumps at once
	twice                       // the tree is dumped twice at once
	timeSpace                   // CRIU runs in a time namespace of its own
	strictKill                  // the fault is over before the policy is carried out
)

// fault is something that goes wrong.
type fault struct {
	name  string
	steps []string
	harms bool // see scenario.harms
	pairs bool // may strike together with another one
	marks mark
	// strike does it, and reports whether there was anything to strike. It gives
	// the exit code of the script that waits at the step.
	strike func(r *run, at step) (exit int, hit bool)
	always bool              // nothing strikes: the whole run is as it should not be
	adapt  func(s *scenario) // fits the scenario to the fault
	set    func(r *run) error
}

// who is a set of processes.
type who int

const (
	criu who = 1 << iota
	hook
	settler
	parent // of the runtime, or of a plain criu
	runtime
)

var names = map[who]string{criu: "criu", hook: "hook", settler: "settler", parent: "parent", runtime: "runtime"}

func (w who) String() (s string) {
	for _, one := range []who{criu, hook, settler, parent, runtime} {
		if w&one != 0 {
			if s != "" {
				s += "+"
			}
			s += names[one]
		}
	}
	return s
}

// ours reports whether one of them is a program of ours.
func (w who) ours() bool { return w&(hook|settler) != 0 }

// signalled returns the fault that sends a signal to processes; one that stops them
// continues them after a while.
func signalled(w who, sig unix.Signal, steps ...string) *fault {
	verb := map[unix.Signal]string{
		unix.SIGKILL: "kill", unix.SIGSTOP: "stop", unix.SIGTERM: "term", unix.SIGHUP: "hup", unix.SIGINT: "int",
	}[sig]
	f := &fault{name: verb + " " + w.String(), steps: steps, harms: w.ours() && sig == unix.SIGKILL, pairs: true}
	if sig == unix.SIGSTOP {
		f.marks |= slows
	}
	f.strike = func(r *run, at step) (int, bool) {
		pids := r.find(w, at)
		for _, p := range pids {
			r.logf("%s: signal %d to %s, %d", at, sig, p.name, p.pid)
			if err := unix.Kill(p.pid, sig); err != nil {
				r.logf("signal to %d: %v", p.pid, err)
			}
			if p.is == criu && sig != unix.SIGSTOP {
				r.criuKilled.Store(true)
			}
		}
		if sig == unix.SIGSTOP {
			time.AfterFunc(r.linger, func() {
				for _, p := range pids {
					_ = unix.Kill(p.pid, unix.SIGCONT)
				}
			})
		}
		return 0, len(pids) > 0
	}
	if w&runtime != 0 {
		f.adapt = func(s *scenario) { s.engine = runc }
	}
	return f
}

// other returns the fault of another action-script that does something.
func other(name string, steps []string, do func(r *run, at step) int) *fault {
	return &fault{name: name, steps: steps, pairs: true, strike: func(r *run, at step) (int, bool) {
		r.logf("%s: another script: %s", at, name)
		return do(r, at), true
	}}
}

// faults lists all of them.
var faults = func() []*fault {
	nothing := &fault{
		name: "none", steps: []string{"a", "b", "c", "d", "e-restore", "f-restore"},
		always: true,
	}
	all := []*fault{
		nothing,
		signalled(criu, unix.SIGKILL, steplist(dumpBefore, dumpDuring, dumpAfter[:3], dumpIn, restoreDuing, restoreAfter, restoreIn)...),
		signalled(settler, unix.SIGKILL, steplist(dumpDuring, dumpAfter, dumpIn, []string{"end:dump"}, restoreDuing, restoreAfter, restoreIn)...),
		signalled(hook, unix.SIGKILL, steplist(dumpDuring, restoreDuing)...),
		signalled(parent, unix.SIGKILL, "before:pre-dump", "during:pre-dump", "after:network-lock", "after:post-dump", "in:end", "in:restore"),
		signalled(runtime, unix.SIGKILL, "after:pre-dump", "during:network-lock", "after:post-dump", "in:end", "in:restore"),
		signalled(criu|settler, unix.SIGKILL, steplist(dumpAfter[:3], dumpIn, []string{"during:pre-dump", "during:post-dump", "in:restore", "after:pre-restore"})...),
		signalled(criu|hook, unix.SIGKILL, steplist(dumpDuring[:3], restoreDuing[:1])...),
		signalled(hook|settler, unix.SIGKILL, steplist(dumpDuring, restoreDuing[:1])...),
		signalled(criu|parent, unix.SIGKILL, "after:network-lock", "after:post-dump", "in:dump"),
		signalled(criu|hook|settler|parent|runtime, unix.SIGKILL, "during:network-lock", "during:post-dump", "in:dump", "in:end"),
		signalled(criu, unix.SIGSTOP, "after:pre-dump", "in:dump", "after:post-dump", "in:restore"),
		signalled(settler, unix.SIGSTOP, steplist(dumpAfter[:3], []string{"during:post-dump", "in:dump", "in:end", "after:pre-restore", "in:restore"})...),
		signalled(hook, unix.SIGSTOP, steplist(dumpDuring[:3], restoreDuing[:2])...),
		signalled(runtime, unix.SIGSTOP, "after:post-dump"),
		signalled(criu|settler, unix.SIGSTOP, "after:network-lock", "after:post-dump"),
		signalled(settler, unix.SIGTERM, "after:pre-dump", "after:network-lock", "after:post-dump", "in:end", "after:pre-restore"),
		signalled(settler, unix.SIGHUP, "after:network-lock"),
		signalled(settler, unix.SIGINT, "after:network-lock"),
		signalled(criu|settler|parent|runtime, unix.SIGTERM, "after:network-lock", "in:dump", "after:post-dump"),
		other("script exits", steplist(dumpBefore, dumpAfter, []string{"before:pre-restore", "after:pre-restore", "after:post-setup-namespaces", "after:unlock-restored", "after:post-resume"}),
			func(*run, step) int { return 1 }),
		other("script hangs", steplist(dumpBefore, dumpAfter[:3], []string{"after:pre-restore", "after:unlock-restored"}),
			func(r *run, _ step) int { time.Sleep(r.linger); return 0 }),
	}
	late := other("script outlasts the time to live", []string{"after:network-lock", "before:post-dump", "after:post-dump"},
		func(r *run, _ step) int { time.Sleep(r.ttl() + 1500*time.Millisecond); return 0 })
	late.marks, late.pairs = shortTTL, false
	orphan := &fault{name: "criu killed before the hook looks", steps: dumpDuring[:3], harms: true, strike: killBeforeLook, marks: strictKill}
	all = append(all, late, orphan)
	return append(append(append(all, dirFaults()...), systemFaults()...), togetherFaults()...)
}()

// killBeforeLook stops the hook at its birth, kills CRIU, and lets the hook go on: it
// finds another parent than the CRIU that executed it.
func killBeforeLook(r *run, at step) (int, bool) {
	found := r.find(hook, at)
	if len(found) == 0 {
		return 0, false
	}
	r.criuKilled.Store(true)
	_ = unix.Kill(at.criu, unix.SIGKILL)
	time.Sleep(20 * time.Millisecond)
	_ = unix.Kill(found[0].pid, unix.SIGCONT)
	r.logf("%s: criu %d killed while the hook %d was stopped", at, at.criu, found[0].pid)
	return 0, true
}

// process is one that a fault is about.
type process struct {
	is   who
	pid  int
	name string
}

// find returns those of the processes that live.
func (r *run) find(w who, at step) (all []process) {
	add := func(is who, pids ...int) {
		for _, pid := range pids {
			if w&is != 0 && pid > 1 && !zombie(pid) {
				all = append(all, process{is, pid, names[is]})
			}
		}
	}
	// Programs of ours first: what they would do about the others' end is a fault
	// of its own.
	add(settler, settlersOf(at.criu)...)
	add(hook, at.hook)
	if w&runtime != 0 && r.engine == runc {
		add(runtime, parentOf(at.criu))
	}
	add(parent, r.caller())
	add(criu, at.criu)
	return all
}

// settlersOf returns the settlers of a CRIU.
func settlersOf(criu int) (pids []int) {
	for _, p := range processes() {
		if p.ours() && len(p.args) > 2 && filepath.Base(p.args[0]) == action.Settler && criuOf(p.args[1]) == criu {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

func criuOf(id string) (pid int) {
	_, _ = fmt.Sscanf(id, "%d@", &pid)
	return pid
}
