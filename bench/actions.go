// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

const emptyGo = "an empty Go program"

// actions measures how long single actions take, from exec to exit.
func (b *bench) actions() error {
	progress("cost per action: %d rounds", b.rounds)
	if err := configure(`policy = "run"`); err != nil {
		return err
	}
	return errors.Join(b.foreign(), b.program(), b.ownActions())
}

// foreign compares the hook, called for an action that is not ours, with
// programs that do nothing.
func (b *bench) foreign() error {
	g := &Group{
		Name: "foreign", Title: "A foreign action", Unit: "ms",
		About: "From exec to exit, for an action that needs no work of ours: CRIU executes each script for every action. " +
			"The ratio is to an empty static Go program.",
	}
	cases := []struct{ name, program string }{
		{emptyGo, helper("empty-go")[0]},
		{"an empty C program", helper("empty-c")[0]},
		{"netfreeze-hook", hook},
		{"one of the four scripts", filepath.Join(libexec, "pre-dump")},
	}
	c, err := startFakeCRIU()
	if err != nil {
		return err
	}
	for round := range 10 * b.rounds {
		for _, i := range shuffledOrder(len(cases), round) {
			ms, err := c.act(cases[i].program, "pre-resume", 0, "")
			if err != nil {
				return errors.Join(err, c.end())
			}
			g.add(cases[i].name, ms)
		}
	}
	g.summarize(emptyGo)
	b.results.add(g)
	return c.end()
}

// program measures the executables: size, time for initialisation, system calls.
func (b *bench) program() error {
	size := &Group{Name: "size", Title: "Size of the executables", Unit: "KiB", About: "Static, stripped."}
	inits := &Group{
		Name: "init", Title: "Initialisation of packages", Unit: "ms",
		About: "The sum of the times that GODEBUG=inittrace=1 prints.",
	}
	calls := &Group{
		Name: "calls", Title: "System calls of a foreign action", Unit: "calls",
		About: "All threads, counted by strace.",
	}
	for _, p := range []struct{ name, path string }{
		{"netfreeze-hook", hook}, {"netfreeze-settler", settler}, {emptyGo, helper("empty-go")[0]},
	} {
		st, err := os.Stat(p.path)
		if err != nil {
			return err
		}
		size.add(p.name, float64(st.Size())/1024)
		for range b.rounds {
			ms, err := initTime(p.path)
			if err != nil {
				return err
			}
			inits.add(p.name, ms)
		}
		if p.path == settler {
			continue
		}
		cmd := exec.Command("strace", "-f", "-qq", "-o", "/dev/stdout", p.path)
		cmd.Env = []string{"CRTOOLS_SCRIPT_ACTION=pre-resume"}
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("strace: %w", err)
		}
		calls.add(p.name, float64(strings.Count(string(out), "\n")))
	}
	for _, g := range []*Group{size, inits, calls} {
		g.summarize(emptyGo)
		b.results.add(g)
	}
	return nil
}

var initLine = regexp.MustCompile(`(?m)^init \S+ @\S+ ms, (\S+) ms clock`)

// initTime runs the program with --help, and returns the time that the
// initialisation of all its packages takes, as Go's runtime prints it.
func initTime(program string) (ms float64, err error) {
	cmd := exec.Command(program, "--help")
	cmd.Env = []string{"GODEBUG=inittrace=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s --help: %w", program, err)
	}
	for _, m := range initLine.FindAllStringSubmatch(string(out), -1) {
		one, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, err
		}
		ms += one
	}
	return ms, nil
}

// ownActions measures each of our actions, in CRIU's order.
func (b *bench) ownActions() error {
	l, done, err := b.newLoad(small, appSide[:1])
	if err != nil {
		return err
	}
	defer done()
	dump := &Group{
		Name: "actions-dump", Title: "Our actions in a dump", Unit: "ms",
		About: "From exec to exit; one process, one connection, policy run. " +
			"pre-dump starts the settler, and runs before the tasks are stopped.",
	}
	memoryUse := &Group{
		Name: "settler", Title: "The settler's memory", Unit: "KiB",
		About: "Its peak (VmHWM), at the end of a dump.",
	}
	for range b.rounds {
		sum, err := l.playDump(dump, []string{"pre-dump", "network-lock", "post-dump", "network-unlock"}, func(pid int) {
			memoryUse.add("settler", memory(pid, "status", "VmHWM"))
		})
		if err != nil {
			return err
		}
		dump.add("all but pre-dump: our part of the frozen time", sum)
	}
	dump.summarize("")
	memoryUse.summarize("")
	b.results.add(dump)
	b.results.add(memoryUse)
	return b.restoreActions(l)
}

// playDump calls the hook with these actions for the tree, adds the time of each
// to the group, unless that is nil, and calls atEnd with each settler's pid. It
// returns the sum in milliseconds of the actions after pre-dump, which run while
// the tasks of a real dump are stopped.
func (l *load) playDump(g *Group, actions []string, atEnd func(settler int)) (sum float64, err error) {
	c, err := startFakeCRIU()
	if err != nil {
		return 0, err
	}
	for _, action := range actions {
		ms, err := c.act(hook, action, l.pid, l.dir)
		if err != nil {
			return 0, errors.Join(err, c.end())
		}
		if g != nil {
			g.add(action, ms)
		}
		if action != "pre-dump" {
			sum += ms
		}
	}
	for _, pid := range settlers() {
		atEnd(pid)
	}
	return sum, c.end()
}

// restoreActions measures our actions in a restore, with the images of a real
// dump.
func (b *bench) restoreActions(l *load) error {
	g := &Group{
		Name: "actions-restore", Title: "Our actions in a restore", Unit: "ms",
		About: "From exec to exit; one connection, to the namespace that it came from.",
	}
	if _, err := l.dump(variants()[0]); err != nil {
		return err
	}
	images := l.dir
	l.dir = filepath.Join(images, "none")
	defer os.RemoveAll(images)
	l.remove() // but not the images
	root := exec.Command("sleep", "infinity")
	if err := l.app.Do(root.Start); err != nil {
		return err
	}
	defer func() { _ = root.Process.Kill(); _ = root.Wait() }()
	for range b.rounds {
		c, err := startFakeCRIU("--join-ns", "net:/run/netns/"+l.app.name)
		if err != nil {
			return err
		}
		for _, action := range []string{"pre-restore", "post-setup-namespaces", "network-unlock", "post-resume"} {
			pid := root.Process.Pid
			if action == "pre-restore" {
				pid = 0
			}
			ms, err := c.act(hook, action, pid, images)
			if err != nil {
				return errors.Join(err, c.end())
			}
			g.add(action, ms)
		}
		if err := c.end(); err != nil {
			return err
		}
	}
	g.summarize("")
	b.results.add(g)
	return nil
}
