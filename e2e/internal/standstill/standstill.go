// SPDX-License-Identifier: Apache-2.0

// Package standstill notices when a processor of the machine stands still. A virtual
// machine's processors do so, for seconds, where their host has none to spare; whatever
// a test then finds to be late says nothing about what it tests.
package standstill

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// least is the shortest time that counts.
const least = 300 * time.Millisecond

// period is how often each processor has to show that it goes on.
const period = 10 * time.Millisecond

// interval is a time between two signs of life of a processor.
type interval struct{ from, to time.Time }

func (i interval) counts() bool { return i.to.Sub(i.from) >= least }

var (
	mu    sync.Mutex
	over  []interval
	last  []time.Time // each processor's last sign of life
	watch sync.Once
)

// Watch begins to watch all processors that this process may run on, for as long as it
// runs. More calls change nothing.
func Watch() {
	watch.Do(func() {
		var all unix.CPUSet
		if unix.SchedGetaffinity(0, &all) != nil {
			return
		}
		for cpu := range 1024 {
			if all.IsSet(cpu) {
				mu.Lock()
				last = append(last, time.Now())
				go tick(cpu, len(last)-1)
				mu.Unlock()
			}
		}
	})
}

// tick runs on one processor, and notes when it has not run there for a while.
func tick(cpu, index int) {
	runtime.LockOSThread() // for good: it stays on that processor
	var one unix.CPUSet
	one.Set(cpu)
	if unix.SchedSetaffinity(0, &one) != nil {
		return
	}
	pause := unix.NsecToTimespec(period.Nanoseconds())
	for {
		_ = unix.Nanosleep(&pause, nil) // not time.Sleep, after which another thread may go on
		now := time.Now()
		mu.Lock()
		if i := (interval{last[index], now}); i.counts() {
			over = append(over, i)
		}
		last[index] = now
		mu.Unlock()
	}
}

// Since returns for how long one processor or another has stood still since from,
// times within the same standstill counted once for each processor.
func Since(from time.Time) (sum time.Duration) {
	mu.Lock()
	defer mu.Unlock()
	all := over
	for _, t := range last {
		all = append(all[:len(all):len(all)], interval{t, time.Now()}) // it may go on
	}
	for _, i := range all {
		if !i.counts() {
			continue
		}
		if i.from.Before(from) {
			i.from = from
		}
		sum += max(i.to.Sub(i.from), 0)
	}
	return sum
}
