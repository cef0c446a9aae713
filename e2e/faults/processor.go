// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// A machine that has more to do than its processors can do does not share them out evenly:
// its scheduler can leave a session that mostly sleeps, such as a container, without a
// processor for a second at a time, again and again, while others run on. A program that is
// late then has broken no promise, and one that never comes still has. So the time in which
// some program of the lab was kept waiting for a processor does not count.

// keptPeriod is how often the lab's programs are looked at, and thus how long one has to
// wait for that to be noticed.
const keptPeriod = 50 * time.Millisecond

// kept is for how long some program has been kept waiting, in nanoseconds.
var kept atomic.Int64

// watchProcessors adds to kept, as long as the program runs.
func watchProcessors() {
	before, at := readyThreads(), time.Now()
	for {
		time.Sleep(keptPeriod)
		now, ready := time.Now(), readyThreads()
		// Whoever looks late has been kept waiting too.
		if step := now.Sub(at); step > 2*keptPeriod || keptWaiting(before, ready) {
			kept.Add(step.Nanoseconds())
		}
		before, at = ready, now
	}
}

// readyThreads returns all threads that want a processor, or have one, and how much they
// have run so far, in the kernel's words.
func readyThreads() map[string]string {
	ready := map[string]string{}
	threads, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*") // the pattern is well-formed
	for _, thread := range threads {
		stat, err := os.ReadFile(thread + "/stat")
		if err != nil || !strings.Contains(string(stat), ") R ") {
			continue // it sleeps, is stopped, or has ended
		}
		if ran, err := os.ReadFile(thread + "/schedstat"); err == nil {
			ready[thread] = string(ran)
		}
	}
	return ready
}

// keptWaiting reports whether a thread was ready before, is so now, and has not run in
// between.
func keptWaiting(before, now map[string]string) bool {
	for thread, ran := range before {
		if now[thread] == ran {
			return true
		}
	}
	return false
}

// timer is a limit for the time that programs take, without the time in which one was kept
// waiting for a processor.
type timer struct {
	limit, most time.Duration
	begun       time.Time
	kept        int64
}

// newTimer begins to measure. Whatever the machine does, most is added to the limit at
// most.
func newTimer(limit, most time.Duration) timer {
	return timer{limit, most, time.Now(), kept.Load()}
}

// over reports whether the limit is over, and whether that is so only because it cannot be
// waited any longer: too little was left of the machine for a judgement.
func (t timer) over() (over, starved bool) {
	waited := time.Since(t.begun)
	if waited-time.Duration(kept.Load()-t.kept) >= t.limit {
		return true, false
	}
	starved = waited >= t.limit+t.most
	return starved, starved
}

// How much longer anything may take than its limit, where programs are kept waiting.
const (
	mostKept     = 10 * time.Second
	mostKeptLook = 2 * time.Second
)

// wait calls wrong until it returns nil or the time is over.
func (r *run) wait(limit time.Duration, wrong func() error) error {
	for t := newTimer(limit, mostKept); ; time.Sleep(5 * time.Millisecond) {
		err := wrong()
		if err == nil || r.over(t) {
			return err
		}
	}
}

// over reports whether a timer is over, and notes if it was starved.
func (r *run) over(t timer) bool {
	over, starved := t.over()
	if starved {
		r.logf("programs were kept waiting for a processor for %s: this is no judgement", time.Duration(kept.Load()-t.kept))
		r.starvation.Store(true)
	}
	return over
}
