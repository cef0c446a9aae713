// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Where the suite under test is installed, and where it keeps its state.
const (
	netfreeze = "/usr/local/bin/netfreeze"
	hookPath  = "/usr/local/libexec/criu-netfreeze/netfreeze-hook"
	stateDir  = "/run/criu-netfreeze"
	criuDir   = "/etc/criu"
	built     = "/opt/build"
)

// run is one run: a scenario with what it needs and what was seen.
type run struct {
	*scenario
	dir   string
	begun time.Time
	steps *steps
	pods  []*pod
	outer string // the rules of the lab's own namespace before

	criuKilled atomic.Bool // a fault has killed a CRIU
	calm       atomic.Bool // no fault strikes any more
	struck     [2]atomic.Bool
	asides     sync.WaitGroup // what goes on beside the run

	mu       sync.Mutex
	log      strings.Builder
	broken   []string
	struckAt time.Time // the first time
	thawed   bool      // a command of a fault has undone the dump
	ended    bool      // a command of a fault has ended the tree
	windows  []window
	refused  bool   // a thaw was refused where that is allowed
	excused  string // why connections are not judged
	outlived bool   // the time to live had to end the freeze

	witnessed int // how often what programs do was written down
}

// window is a time in which nothing may leave.
type window struct {
	pod      *pod
	from, to time.Time
}

func (r *run) logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.log, "%8.4f %s\n", time.Since(r.begun).Seconds(), fmt.Sprintf(format, args...))
}

// breaks records a broken promise. What comes before the first colon names it.
func (r *run) breaks(promise, format string, args ...any) {
	text := promise + ": " + fmt.Sprintf(format, args...)
	r.logf("BROKEN: %s", text)
	for _, t := range r.trees() {
		r.witness(t, text)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, text)
}

// ttl is the time to live of freezes in this run. It is short where the kernel must
// end them because nothing of ours is left.
func (r *run) ttl() time.Duration {
	switch {
	case r.has(shortTTL):
		return 2 * time.Second
	case r.first.restores() || !r.harms():
		return time.Minute
	}
	return 10 * time.Second
}

// limit is how long a state may take to be reached. A second is promised; the rest is
// for a machine that is busy with other runs.
func (r *run) limit() time.Duration {
	limit := 3 * time.Second
	if r.has(slows | many) {
		limit += 5 * time.Second
	}
	return limit
}

// excuse notes why the connections of the run cannot be judged: what CRIU leaves
// behind when it is killed at such a moment is not for an action-script to mend.
func (r *run) excuse(why string) {
	r.logf("excused: %s", why)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.excused = why
}

// play carries out the run. The error says that the run could not be carried out;
// broken promises are recorded.
func (r *run) play() error {
	if err := r.prepare(); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	r.logf("prepared")
	var dumps sync.WaitGroup
	for _, t := range r.trees() {
		dumps.Go(func() { t.dumped = r.call(t, "dump") })
	}
	dumps.Wait()
	r.asides.Wait()
	for _, t := range r.trees() {
		r.judgeDump(t)
		if t.state == mixed {
			r.witness(t, string(mixed))
		}
	}
	for _, p := range r.pods {
		r.undo(p)
	}
	if r.refused {
		return nil
	}
	r.logf("undone")
	for _, p := range r.pods {
		r.judgeBack(p)
	}
	r.logf("every pod is judged")
	r.judgeRest()
	return nil
}

func (r *run) trees() (all []*tree) {
	for _, p := range r.pods {
		all = append(all, p.trees...)
	}
	return all
}

// prepare configures the suite and starts the programs.
func (r *run) prepare() (err error) {
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	if r.outer, err = ruleset(""); err != nil {
		return err
	}
	policy := r.policy
	if policy == killed {
		policy = hold
	}
	config := fmt.Sprintf("policy = %q\nbackend = %q\nttl = %q\nrestore-failure = \"keep\"\n\n[log]\nlevel = \"debug\"\nfile = %q\n",
		policy, r.backend, r.ttl(), filepath.Join(r.dir, "netfreeze.log"))
	if err := os.WriteFile(filepath.Join(criuDir, "netfreeze.toml"), []byte(config), 0o600); err != nil {
		return err
	}
	scripts := "tcp-established\nnetwork-lock skip\n"
	for _, path := range r.scripts() {
		scripts += "action-script " + path + "\n"
	}
	if err := os.WriteFile(filepath.Join(criuDir, "runc.conf"), []byte(scripts), 0o600); err != nil {
		return err
	}
	for i, c := range r.combos() {
		if c.fault.always {
			r.struck[i].Store(true)
		}
		if c.fault.set != nil {
			if err := c.fault.set(r); err != nil {
				return err
			}
		}
	}
	pods, trees := 1, 1
	switch {
	case r.has(many):
		pods = 20
	case r.has(siblings):
		trees = 2
	}
	for n := range pods {
		p, err := r.newPod(n, trees)
		r.pods = append(r.pods, p)
		if err != nil {
			return err
		}
	}
	r.steps.handler(r.atStep)
	return nil
}

// scripts lists the action-scripts as CRIU wants them: the last one runs first.
func (r *run) scripts() []string {
	return []string{filepath.Join(r.dir, scriptAfter), hookPath, filepath.Join(r.dir, scriptBefore)}
}

// atStep is called when a script reports. The faults of this step strike now.
func (r *run) atStep(at step) (exit int) {
	t := r.treeOf(at.criu)
	if t == nil || t.attempt() == nil || at.criu <= 1 {
		r.logf("%s of a CRIU that is gone or not known, %d", at, at.criu)
		return 0
	}
	a := t.attempt()
	a.reached(r, t, at)
	name := at.String()
	if a.stage == "restore" {
		name = strings.Replace(name, "network-unlock", "unlock-restored", 1)
	}
	for i, c := range r.combos() {
		when, what, _ := strings.Cut(c.step, ":")
		strike := func(at step) int { return r.strike(i, c, at) }
		switch {
		case c.step == name:
			exit |= strike(at)
		case when == "during" && name == "before:"+what:
			r.asides.Go(func() { r.during(c, at, strike) })
		case c.step == "in:dump" && name == "after:network-lock",
			c.step == "in:end" && name == "after:post-dump",
			c.step == "in:restore" && name == "after:pre-restore":
			r.asides.Go(func() {
				time.Sleep(r.delay)
				strike(at)
			})
		case c.step == "end:dump" && name == "before:pre-dump":
			r.asides.Go(func() {
				a.awaitEnd(commandPatience)
				time.Sleep(r.delay / 10)
				strike(at)
			})
		}
	}
	return exit
}

// strike has a fault strike, once.
func (r *run) strike(i int, c combo, at step) int {
	if r.calm.Load() || !r.struck[i].CompareAndSwap(false, true) {
		return 0
	}
	r.mu.Lock()
	if r.struckAt.IsZero() {
		r.struckAt = time.Now()
	}
	r.mu.Unlock()
	exit, hit := c.fault.strike(r, at)
	if !hit {
		r.struck[i].Store(false)
		r.logf("%s: %s found nothing to strike", at, c.fault.name)
	}
	return exit
}

// during waits until CRIU executes our script and lets the fault strike while that
// runs.
func (r *run) during(c combo, at step, strike func(step) int) {
	old := map[int]bool{at.script: true}
	for _, pid := range childrenOf(at.criu) {
		old[pid] = true
	}
	delay := r.delay / 20
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline) && !zombie(at.criu); {
		for _, pid := range childrenOf(at.criu) {
			if old[pid] {
				continue
			}
			at.hook = pid
			at.when = "during"
			if c.fault.marks&strictKill != 0 {
				stop(pid)
			} else {
				time.Sleep(delay)
			}
			strike(at)
			return
		}
		time.Sleep(30 * time.Microsecond)
	}
	r.logf("%s: our script was not seen", at)
}

// background does something beside the run.
func (r *run) background(do func()) {
	r.asides.Go(do)
}

// command runs a command of the suite, and notes what it has undone.
func (r *run) command(args ...string) (string, error) {
	begun := time.Now()
	out, err := runIn("", "", append([]string{netfreeze}, args...)...)
	r.logf("netfreeze %s (%s): %v: %s", strings.Join(args, " "), time.Since(begun).Round(time.Millisecond), err, strings.TrimSpace(out))
	if err == nil {
		r.mu.Lock()
		r.thawed = r.thawed || args[0] == "thaw"
		r.ended = r.ended || args[0] == "kill"
		r.mu.Unlock()
	}
	return out, err
}
