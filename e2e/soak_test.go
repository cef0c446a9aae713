// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// soakVar is the environment variable that says how many rounds TestSoak goes.
const soakVar = "NETFREEZE_SOAK"

// TestSoak holds and thaws, and holds, ends and restores, one application under load
// again and again. At the end nothing has become more.
func TestSoak(t *testing.T) {
	rounds := 8
	if n, err := strconv.Atoi(os.Getenv(soakVar)); err == nil {
		rounds = n
	}
	withNetfreeze(t, settings{policy: "hold"}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, few)
	round := func(i int) {
		p.holdAndThaw()
		p.holdAndKill()
		p.dumped.engine.remove(p.dumped)
		if err := p.dumped.engine.restore(p.dumped); err != nil {
			t.Fatalf("round %d: restore: %v", i, err)
		}
		p.awaitTraffic(patience, time.Now())
	}
	const warm = 2
	for i := range warm {
		round(i)
	}
	before := p.inventory()
	begin := time.Now()
	for i := range rounds {
		round(warm + i)
		if i%20 == 19 {
			t.Logf("%d rounds in %v: %v", i+1, time.Since(begin).Round(time.Second), p.inventory())
		}
	}
	var after inventory
	poll(t, patience, "everything to be as before", func() error {
		after = p.inventory()
		return before.grown(after)
	})
	t.Logf("before %v, after %d rounds %v", before, rounds, after)
	p.checkUnharmed(time.Now())
}

// inventory is what there is of things that a leak would make more of.
type inventory struct {
	processes  int // of ours
	files      int // in the state directory
	fds        int // of the application
	open       int // files of the whole machine
	netns      int // network namespaces that have a process or a mount
	sockets    int // in the application's namespace
	rules      int // bytes of its ruleset
	kernelKiB  int // unreclaimable slabs
	vmallocKiB int // where the kernel keeps rules, among others
}

func (v inventory) String() string {
	return fmt.Sprintf("%d processes, %d state files, %d descriptors (machine %d), %d namespaces, %d sockets, %d bytes of rules, kernel %d + %d KiB",
		v.processes, v.files, v.fds, v.open, v.netns, v.sockets, v.rules, v.kernelKiB, v.vmallocKiB)
}

// grown returns an error if something has become more, beyond what comes and goes on
// any machine.
func (v inventory) grown(now inventory) error {
	for _, c := range []struct {
		what          string
		before, after int
		slack         int
	}{
		{"processes of ours", v.processes, now.processes, 0},
		{"state files", v.files, now.files, 0},
		{"descriptors of the application", v.fds, now.fds, 0},
		{"open files of the machine", v.open, now.open, 256},
		{"network namespaces", v.netns, now.netns, 0},
		{"sockets in the namespace", v.sockets, now.sockets, 0},
		{"bytes of rules", v.rules, now.rules, 0},
		{"KiB of kernel memory", v.kernelKiB, now.kernelKiB, 24 << 10},
		{"KiB of the kernel's mapped memory", v.vmallocKiB, now.vmallocKiB, 8 << 10},
	} {
		if c.after > c.before+c.slack {
			return fmt.Errorf("%s: %d, and %d before", c.what, c.after, c.before)
		}
	}
	return nil
}

func (p *pair) inventory() (v inventory) {
	t := p.dumped.t
	t.Helper()
	cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range cmdlines {
		if line, err := os.ReadFile(f); err == nil && bytes.Contains(line, []byte("netfreeze")) {
			v.processes++
		}
	}
	count := func(pattern string) int {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	v.files = count(stateDir+"/*") + count(stateDir+"/.[^.]*")
	v.fds = count(fmt.Sprintf("/proc/%d/fd/*", p.dumped.pid))
	fileNr, err := os.ReadFile("/proc/sys/fs/file-nr")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Sscan(string(fileNr), &v.open)
	namespaces := map[string]bool{}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil {
			namespaces[to] = true
		}
	}
	v.netns = len(namespaces)
	v.sockets = strings.Count(mustRun(t, p.app.netns, "", "ss", "-Htan"), "\n")
	v.rules = len(ruleset(t, p.app.netns))
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(meminfo)) {
		name, rest, _ := strings.Cut(line, ":")
		switch name {
		case "SUnreclaim":
			_, _ = fmt.Sscan(rest, &v.kernelKiB)
		case "VmallocUsed":
			_, _ = fmt.Sscan(rest, &v.vmallocKiB)
		}
	}
	return v
}
