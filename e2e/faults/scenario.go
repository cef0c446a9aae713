// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// The policies for a dump that leaves the tasks running, and one word for a dump in
// which CRIU itself is told to end them.
const (
	run_      = "run"
	isolate   = "isolate"
	hold      = "hold"
	kill      = "kill"
	killed    = "criu-kills"
	plainCRIU = "criu"
	runc      = "runc"
)

// combo is a fault at a step. Steps are "before:ACTION", "during:ACTION" and
// "after:ACTION" (of our action-script), "in:dump", "in:end" and "in:restore" (a
// moment after network-lock, after post-dump, after pre-restore), "end:dump" and
// "end:restore" (a moment after CRIU has ended), or a word that only the fault knows.
type combo struct {
	fault *fault
	step  string
}

// restores reports whether the step belongs to a restore.
func (c combo) restores() bool {
	for _, word := range []string{"restore", "post-setup-namespaces", "post-resume", "unlock-restored"} {
		if strings.Contains(c.step, word) {
			return true
		}
	}
	return false
}

// scenario is all that is chosen for one run; the seed alone determines it.
type scenario struct {
	seed    uint64
	first   combo
	second  *combo // strikes too, in the same dump or restore
	engine  string
	backend string
	policy  string
	delay   time.Duration // for steps that are a moment after something
	linger  time.Duration // for faults that last
	random  *rand.Rand    // for what else the run has to choose
	ipv6    bool
}

// newScenario chooses everything from a seed. Consecutive seeds go through the whole
// plan before any fault and step comes again.
func newScenario(seed uint64) *scenario {
	const stride = 7919 // a prime, so that neighbours in the plan do not come one after the other
	all := plan()
	s := &scenario{seed: seed, random: rand.New(rand.NewPCG(seed, 0x6e66))}
	s.first = all[seed%uint64(len(all))*stride%uint64(len(all))]
	pick := func(of ...string) string { return of[s.random.IntN(len(of))] }
	s.engine = pick(plainCRIU, plainCRIU, runc)
	s.backend = pick("nftables", "nftables", "iptables-nft", "iptables-legacy")
	s.policy = pick(hold, hold, kill, run_, isolate, killed)
	if s.first.restores() {
		s.policy = pick(kill, killed)
	}
	s.delay = time.Duration(s.random.Int64N(int64(60 * time.Millisecond)))
	s.linger = 200*time.Millisecond + time.Duration(s.random.Int64N(int64(time.Second)))
	s.ipv6 = s.random.IntN(3) == 0
	second := s.random.IntN(5) == 0
	other := all[s.random.IntN(len(all))]
	// A program can be wrapped once.
	if second && s.first.fault.pairs && other.fault.pairs && other.restores() == s.first.restores() &&
		(s.first.fault != other.fault || s.first.fault.set == nil) {
		s.second = &other
	}
	for _, c := range s.combos() {
		if c.fault.adapt != nil {
			c.fault.adapt(s)
		}
	}
	return s
}

func (s *scenario) combos() []combo {
	if s.second != nil {
		return []combo{s.first, *s.second}
	}
	return []combo{s.first}
}

// key is the run's line in the table.
func (s *scenario) key() string { return s.first.fault.name + "@" + s.first.step }

func (s *scenario) String() string {
	text := s.key()
	if s.second != nil {
		text += "+" + s.second.fault.name + "@" + s.second.step
	}
	return fmt.Sprintf("%s/%s/%s/%s", text, s.engine, s.backend, s.policy)
}

// harms reports whether a fault of the run may end, stop or starve our own programs,
// so that less is promised (what is left is undone by the kernel and netfreeze thaw).
func (s *scenario) harms() bool {
	return slices.ContainsFunc(s.combos(), func(c combo) bool { return c.fault.harms })
}

// has reports whether a fault of the run has this mark.
func (s *scenario) has(m mark) bool {
	return slices.ContainsFunc(s.combos(), func(c combo) bool { return c.fault.marks&m != 0 })
}

// plan lists every fault with every step at which it strikes.
var plan = sync.OnceValue(func() (all []combo) {
	for _, f := range faults {
		for _, step := range f.steps {
			all = append(all, combo{f, step})
		}
	}
	return all
})

// Steps by group.
var (
	dumpBefore   = []string{"before:pre-dump", "before:network-lock", "before:post-dump"}
	dumpDuring   = []string{"during:pre-dump", "during:network-lock", "during:post-dump", "during:network-unlock"}
	dumpAfter    = []string{"after:pre-dump", "after:network-lock", "after:post-dump", "after:network-unlock"}
	dumpIn       = []string{"in:dump", "in:end"}
	restoreDuing = []string{"during:pre-restore", "during:post-setup-namespaces", "during:post-resume"}
	restoreAfter = []string{"after:pre-restore", "after:post-setup-namespaces", "after:unlock-restored", "after:post-resume"}
	restoreIn    = []string{"in:restore"}
)

func steplist(groups ...[]string) []string { return slices.Concat(groups...) }
