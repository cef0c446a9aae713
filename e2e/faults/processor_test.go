// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestTimer does not count time in which programs are kept waiting for a processor, and
// gives up all the same.
func TestTimer(t *testing.T) {
	defer kept.Store(kept.Load())
	const limit, most = 100 * time.Millisecond, time.Second
	for _, test := range []struct {
		name          string
		waited, kept  time.Duration
		over, starved bool
	}{
		{"early", limit / 2, 0, false, false},
		{"late", limit, 0, true, false},
		{"late for a reason", 2 * limit, 2*limit - limit/2, false, false},
		{"late beside that", 3 * limit, limit, true, false},
		{"never", limit + most, most + limit/2, true, true},
	} {
		end := newTimer(limit, most)
		end.begun = time.Now().Add(-test.waited)
		kept.Add(test.kept.Nanoseconds())
		if over, starved := end.over(); over != test.over || starved != test.starved {
			t.Errorf("%s: over %v, starved %v", test.name, over, starved)
		}
	}
}

// TestKeptWaiting tells a thread that has not run between two looks from one that has, has
// slept, or has come or gone.
func TestKeptWaiting(t *testing.T) {
	const ran, further = "1094799073 28322463 2762\n", "1095799073 28322463 2762\n"
	for name, test := range map[string]struct {
		before, now map[string]string
		want        bool
	}{
		"waits":  {map[string]string{"1": ran, "2": ran}, map[string]string{"1": further, "2": ran}, true},
		"runs":   {map[string]string{"1": ran}, map[string]string{"1": further}, false},
		"sleeps": {map[string]string{"1": ran}, nil, false},
		"wakes":  {nil, map[string]string{"1": ran}, false},
	} {
		if got := keptWaiting(test.before, test.now); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestReadyThreads finds a program that always wants to run, sees it get on, and does not
// find one that sleeps. How threads wait is left out: to have some wait for long, a test
// would have to keep the whole machine from its work.
func TestReadyThreads(t *testing.T) {
	start := func(argv ...string) string {
		cmd := exec.Command(argv[0], argv[1:]...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
		return fmt.Sprintf("/proc/%d/task/%[1]d", cmd.Process.Pid)
	}
	loop, sleeper := start("sh", "-c", "while :; do :; done"), start("sleep", "60")
	deadline := time.Now().Add(20 * time.Second)
	until := func(what string, done func(ready map[string]string) bool) (ready map[string]string) {
		for ready = readyThreads(); !done(ready); ready = readyThreads() {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
			time.Sleep(time.Millisecond)
		}
		return ready
	}
	before := until("the loop is not ready", func(ready map[string]string) bool { return len(strings.Fields(ready[loop])) == 3 })
	until("the loop does not get on", func(ready map[string]string) bool { return ready[loop] != "" && ready[loop] != before[loop] })
	until("the program that sleeps is ready", func(ready map[string]string) bool { return ready[sleeper] == "" })
}
