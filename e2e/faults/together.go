// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"
)

// togetherFaults are several dumps at once, commands that race with a dump, and other
// things that come together.
func togetherFaults() []*fault {
	notRestored := func(s *scenario) {
		s.engine = plainCRIU
		if s.policy == killed || s.policy == kill {
			s.policy = hold
		}
	}
	racing := func(name string, m mark, command func(r *run) []string) *fault {
		return &fault{
			name: "racing " + name, marks: m, pairs: true,
			steps: []string{"after:pre-dump", "during:network-lock", "in:dump", "during:post-dump", "in:end", "end:dump"},
			strike: func(r *run, at step) (int, bool) {
				for range 3 {
					r.background(func() { r.command(command(r)...) })
					time.Sleep(time.Duration(r.random.Int64N(int64(10 * time.Millisecond))))
				}
				return 0, true
			},
		}
	}
	return []*fault{
		{name: "two trees in one namespace", steps: []string{"a", "b", "c"}, marks: siblings | slows, always: true, adapt: notRestored},
		{name: "many dumps at once", steps: []string{"a"}, marks: many | slows, always: true, adapt: notRestored},
		{name: "forking tree", steps: []string{"a", "b"}, marks: forks, always: true, adapt: func(s *scenario) { s.engine = plainCRIU }},
		{name: "time namespace", steps: []string{"a", "b"}, marks: timeSpace, harms: true, always: true, adapt: func(s *scenario) { s.engine = plainCRIU }},
		{
			name: "second dump of the tree", steps: []string{"after:pre-dump", "in:dump", "after:post-dump"}, marks: twice,
			adapt: func(s *scenario) {
				s.engine = plainCRIU
				if s.policy == killed {
					s.policy = kill
				}
			},
			strike: func(r *run, at step) (int, bool) {
				r.background(r.dumpAgain)
				return 0, true
			},
		},
		racing("status", 0, func(*run) []string { return []string{"status"} }),
		racing("thaw", asks, func(r *run) []string { return []string{"thaw", r.target()} }),
		racing("kill", asks, func(r *run) []string { return []string{"kill", fmt.Sprint(r.pods[0].trees[0].pid)} }),
	}
}

// target names the run's first tree, or its namespace, for a command.
func (r *run) target() string {
	if r.random.IntN(2) == 0 {
		return r.pods[0].app
	}
	return fmt.Sprint(r.pods[0].trees[0].pid)
}
