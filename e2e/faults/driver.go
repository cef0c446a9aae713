// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/e2e/internal/standstill"
)

// order is what the driver tells a world to do.
type order struct {
	Seed uint64
	Keep string // where the logs of a broken run go, in the lab
	All  bool   // keep those of other runs too
}

// result is what a world answers.
type result struct {
	Seed   uint64
	Broken []string // promises that were broken
	Hit    bool     // whether the fault took effect
	// Excused says why the connections were not judged, "" if they were.
	Excused string
	Failed  string // why the harness itself could not do the run
	Spent   time.Duration
	Retire  bool // the world is not as it was before, and must not be used again
}

// worldPatience is how long one run may take before its world is given up.
const worldPatience = 150 * time.Second

// drive hands the runs out to the worlds and prints the table.
func drive(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	var seeds []uint64
	for seed, tried := o.seed, 0; len(seeds) < o.runs; seed, tried = seed+1, tried+1 {
		if only.MatchString(newScenario(seed).String()) {
			seeds = append(seeds, seed)
			tried = 0
		}
		if tried > 100*len(plan()) {
			return fmt.Errorf("no run matches %q; -list shows them", o.only)
		}
	}
	if o.list {
		for _, seed := range seeds {
			fmt.Println(seed, newScenario(seed))
		}
		return nil
	}
	keep := filepath.Join(o.build, "keep")
	if err := os.MkdirAll(keep, 0o755); err != nil {
		return err
	}
	standstill.Watch()
	begun := time.Now()
	fmt.Printf("%d runs from seed %d, in %d worlds\n", len(seeds), o.seed, o.worlds)
	work, done := make(chan uint64), make(chan result)
	var worlds sync.WaitGroup
	for range min(o.worlds, len(seeds)) {
		worlds.Go(func() { handOut(o, work, done) })
	}
	go func() {
		for _, seed := range seeds {
			work <- seed
		}
		close(work)
		worlds.Wait()
		close(done)
	}()
	t := newTable()
	var wrong []result
	for r := range done {
		t.add(r)
		if len(r.Broken) > 0 || r.Failed != "" {
			wrong = append(wrong, r)
		}
		if !o.quiet || len(r.Broken) > 0 || r.Failed != "" {
			fmt.Println(r)
		}
	}
	fmt.Print(t)
	fmt.Printf("%d runs in %s\n", t.total.runs, time.Since(begun).Round(time.Second))
	for _, r := range wrong { // once more, where a long log ends
		fmt.Println(r)
	}
	if t.total.broken > 0 || t.total.failed > 0 {
		return fmt.Errorf("%d runs broke a promise, %d could not be carried out; logs are in %s, and SEED=N RUNS=1 repeats a run",
			t.total.broken, t.total.failed, keep)
	}
	return nil
}

func (r result) String() string {
	s := newScenario(r.Seed)
	state := "ok"
	switch {
	case r.Failed != "":
		state = "FAILED: " + r.Failed
	case len(r.Broken) > 0:
		state = "BROKEN: " + strings.Join(r.Broken, "; ")
	case !r.Hit:
		state = "ok (the fault did not strike)"
	case r.Excused != "":
		state = "ok (but for connections: " + r.Excused + ")"
	}
	return fmt.Sprintf("seed %d %s (%.1f s): %s", r.Seed, s, r.Spent.Seconds(), state)
}

// attempts is how often a run is done that could not be carried out, or that found
// something broken while a processor of the machine stood still. A world can be lost by
// what the run before has left.
const attempts = 3

// handOut has one world after the other do runs until there are none left.
func handOut(o options, work <-chan uint64, done chan<- result) {
	var w *lab
	for seed := range work {
		var r result
		for range attempts {
			begun := time.Now()
			var err error
			if w == nil {
				w, err = startLab(o)
			}
			if err == nil {
				r, err = w.do(seed, o.all)
			}
			stood := standstill.Since(begun)
			if err == nil && (len(r.Broken) == 0 || stood == 0) {
				break
			}
			if err != nil {
				r = result{Seed: seed, Failed: err.Error()}
			}
			if stood > 0 {
				fmt.Printf("a processor stood still for %.1f s; %s\n", stood.Seconds(), r)
			}
			w.kill()
			w = nil
		}
		if r.Retire || r.Failed != "" {
			w.kill()
			w = nil
		}
		done <- r
	}
	w.kill()
}

// lab is a running world.
type lab struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startLab(o options) (*lab, error) {
	build, err := filepath.Abs(o.build)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(o.lab, "run", "--share", build+":/opt/build", "--share", filepath.Join(build, "keep")+":/opt/keep:rw",
		"--", "/opt/build/faults", "world")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a lab: %w", err)
	}
	return &lab{cmd, in, bufio.NewReader(out)}, nil
}

// do has the world carry out a run.
func (l *lab) do(seed uint64, all bool) (r result, err error) {
	if err := json.NewEncoder(l.in).Encode(order{Seed: seed, Keep: "/opt/keep", All: all}); err != nil {
		return r, fmt.Errorf("the world has ended: %w", err)
	}
	late := time.AfterFunc(worldPatience, func() { _ = l.cmd.Process.Kill() })
	defer late.Stop()
	line, err := l.out.ReadBytes('\n')
	if err != nil {
		return r, fmt.Errorf("the world has ended, or was ended after %s: %w", worldPatience, err)
	}
	return r, json.Unmarshal(line, &r)
}

// kill ends the lab and all that runs in it.
func (l *lab) kill() {
	if l == nil {
		return
	}
	_ = l.in.Close() // the world ends, then the lab, which tidies up
	gone := time.AfterFunc(10*time.Second, func() { _ = l.cmd.Process.Kill() })
	defer gone.Stop()
	_, _ = io.Copy(io.Discard, l.out)
	_ = l.cmd.Wait()
}
