// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// How much evidence a run collects: what breaks once often breaks again, and looking
// takes time.
const (
	maxEvidence  = 4
	betweenLooks = 300 * time.Millisecond
)

// witness writes down what the programs of a tree do at this moment, where that is not
// what was promised. A state lasts for a while or it does not, so they are looked at
// twice, and what they did in between is said as well: whether a thread that does
// nothing has nothing to do, is kept from it, or waits for a processor.
func (r *run) witness(t *tree, why string) {
	r.mu.Lock()
	n := r.witnessed
	r.witnessed++
	r.mu.Unlock()
	if n >= maxEvidence {
		return
	}
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("%.4f %s: %s", time.Since(r.begun).Seconds(), t.id, why)
	used := processorTimes()
	pids := treeOf(t.pid)
	if t.client != nil && t.client.Process != nil {
		pids = append(pids, t.client.Process.Pid)
	}
	for _, p := range processes() {
		if p.ours() {
			pids = append(pids, p.pid)
		}
	}
	for look := range 2 {
		if look > 0 {
			time.Sleep(betweenLooks)
			say("\n%.4f again", time.Since(r.begun).Seconds())
		}
		for side, file := range map[string]*stats.File{"app": t.stats, "peer": t.peers} {
			if file == nil {
				continue
			}
			say("%s has ticked %d times", side, file.Ticks())
			for _, s := range file.Snapshots() {
				say("%s: connection %d, %s, sent %d, received %d, the last %.4f s before", side, s.ID, s.State, s.Sent, s.Received,
					time.Since(time.Unix(0, s.LastAt)).Seconds())
			}
		}
		for _, pid := range pids {
			b.WriteString(describe(pid, look == 0))
		}
	}
	say("\nprocessor time of the processes meanwhile, and what waits for one:\n%s%s%s", spent(used), read("/proc/loadavg"), read("/proc/pressure/cpu"))
	path := filepath.Join(r.dir, fmt.Sprintf("evidence-%d-%s.log", n, t.id))
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		r.logf("write down what %s does: %v", t.id, err)
	}
}

// read returns the text of a file of the kernel, or why it cannot be read.
func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error() + "\n"
	}
	return string(text)
}

// describe says what the kernel tells of a process, and of each of its threads; in full
// it adds what hardly changes.
func describe(pid int, full bool) string {
	var b strings.Builder
	dir := fmt.Sprintf("/proc/%d", pid)
	fmt.Fprintf(&b, "\nprocess %d: %s\n", pid, strings.ReplaceAll(read(dir+"/cmdline"), "\x00", " "))
	maps := read(dir + "/maps")
	threads, _ := filepath.Glob(dir + "/task/[0-9]*") // the pattern is well-formed
	for _, thread := range threads {
		call := strings.TrimSpace(read(thread + "/syscall"))
		fmt.Fprintf(&b, "thread %s: waits in %s, call %s, in %s; ran, waited to run, times: %s", filepath.Base(thread), strings.TrimSpace(read(thread+"/wchan")),
			call, mappingAt(maps, call), read(thread+"/schedstat"))
		b.WriteString(fields(read(thread+"/status"), "State", "TracerPid", "SigPnd", "ShdPnd", "SigBlk", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"))
		b.WriteString(read(thread + "/stack"))
	}
	switch n, err := repaired(pid); {
	case err != nil:
		fmt.Fprintf(&b, "its sockets: %v\n", err)
	default:
		fmt.Fprintf(&b, "%d of its sockets are in repair mode\n", n)
	}
	groups := read(dir + "/cgroup")
	b.WriteString(groups)
	for line := range strings.Lines(groups) {
		if group, unified := strings.CutPrefix(strings.TrimSpace(line), "0::"); unified {
			fmt.Fprintf(&b, "cgroup.freeze: %scgroup.events: %s", read("/sys/fs/cgroup"+group+"/cgroup.freeze"), read("/sys/fs/cgroup"+group+"/cgroup.events"))
		}
	}
	b.WriteString(read(dir + "/autogroup"))
	if full {
		b.WriteString(read(dir+"/status") + maps)
	}
	return b.String()
}

// fields returns the lines of a text of the form "NAME: VALUE" that have these names.
func fields(text string, names ...string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if name, _, _ := strings.Cut(line, ":"); slices.Contains(names, name) {
			b.WriteString("  " + line)
		}
	}
	return b.String()
}

// mappingAt names the mapping that a thread's program counter is in, the last word of
// /proc/PID/task/TID/syscall.
func mappingAt(maps, call string) string {
	words := strings.Fields(call)
	if len(words) == 0 {
		return "no mapping"
	}
	pc, err := strconv.ParseUint(strings.TrimPrefix(words[len(words)-1], "0x"), 16, 64)
	if err != nil {
		return "a mapping that is not known"
	}
	for line := range strings.Lines(maps) {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x", &from, &to); n == 2 && from <= pc && pc < to {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return "no mapping"
}

// processorTimes returns how much processor time each process has used, in ticks.
func processorTimes() map[string]uint64 {
	used := map[string]uint64{}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, dir := range dirs {
		stat, err := os.ReadFile(dir + "/stat")
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if err != nil || len(f) < 13 {
			continue // it has ended
		}
		user, _ := strconv.ParseUint(f[11], 10, 64)
		system, _ := strconv.ParseUint(f[12], 10, 64)
		name, _, _ := strings.Cut(string(stat), ")")
		used[name+")"] = user + system
	}
	return used
}

// spent lists the processes that have used processor time since.
func spent(before map[string]uint64) string {
	var b strings.Builder
	for name, now := range processorTimes() {
		if now > before[name] {
			fmt.Fprintf(&b, "%s: %d ticks\n", name, now-before[name])
		}
	}
	return b.String()
}
