// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// scale measures with many containers at once, each a process tree with one
// connection in a namespace of its own.
func (b *bench) scale() error {
	progress("scale: %d containers", b.held)
	if err := configure(`policy = "hold"`); err != nil {
		return err
	}
	var loads []*load
	defer func() {
		for _, l := range loads {
			l.remove()
			l.app.remove()
		}
	}()
	for range b.held {
		s, err := b.newNetNS("held")
		if err != nil {
			return err
		}
		l, err := startLoad(s, s, small, []string{"127.0.0.1"})
		if err != nil {
			s.remove()
			return err
		}
		loads = append(loads, l)
	}
	times := &Group{
		Name: "scale-time", Title: fmt.Sprintf("Time with %d containers", b.held), Unit: "ms",
		About: "Each sample is one container, or one call of netfreeze status.",
	}
	mem := &Group{
		Name: "scale-memory", Title: fmt.Sprintf("Memory with %d containers", b.held), Unit: "KiB",
		About: "For the settlers, the sum of their proportional set sizes (PSS). No settler is left after CRIU's end.",
	}
	counts := &Group{Name: "scale-count", Title: "Our processes", Unit: "processes", About: "Running settlers."}
	err := errors.Join(b.transactions(loads, times, mem, counts), b.hold(loads, times, mem, counts))
	if err != nil {
		return err
	}
	for _, g := range []*Group{times, mem, counts} {
		g.summarize("")
		b.results.add(g)
	}
	return nil
}

// transactions has a dump of every tree in progress at the same time.
func (b *bench) transactions(loads []*load, times, mem, counts *Group) error {
	var crius []*fakeCRIU
	var errs []error
	for _, l := range loads {
		c, err := startFakeCRIU()
		if err != nil {
			errs = append(errs, err)
			break
		}
		crius = append(crius, c)
		ms, err := c.act(hook, "pre-dump", l.pid, l.dir)
		if err != nil {
			errs = append(errs, err)
			break
		}
		times.add("pre-dump, with the others under way", ms)
	}
	name := fmt.Sprintf("%d dumps under way", len(loads))
	var sum float64
	pids := settlers()
	for _, pid := range pids {
		sum += memory(pid, "smaps_rollup", "Pss")
	}
	counts.add(name, float64(len(pids)))
	mem.add(name+": settlers", sum)
	for _, c := range crius {
		began := time.Now()
		errs = append(errs, c.end())
		times.add("undoing one dump after CRIU's end", time.Since(began).Seconds()*1000)
	}
	return errors.Join(errs...)
}

// hold has CRIU dump every tree with policy hold, measures what all of them
// take, and thaws or kills them one by one.
func (b *bench) hold(loads []*load, times, mem, counts *Group) error {
	v := variant{name: "hold", lock: "skip", scripts: []string{hook}}
	for i, l := range loads {
		began := time.Now()
		if _, err := l.dump(v); err != nil {
			return err
		}
		if err := l.awaitSettled(v); err != nil {
			return err
		}
		name := "dump and hold, the first tenth"
		if i >= len(loads)*9/10 {
			name = "dump and hold, the last tenth"
		}
		if i < len(loads)/10 || i >= len(loads)*9/10 {
			times.add(name, time.Since(began).Seconds()*1000)
		}
	}
	name := fmt.Sprintf("%d containers held", len(loads))
	counts.add(name, float64(len(settlers())))
	var bytes int64
	files, _ := filepath.Glob("/run/criu-netfreeze/*")
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			bytes += st.Size()
		}
	}
	mem.add(name+": records", float64(bytes)/1024)
	for _, args := range [][]string{{"status"}, {"status", "-o", "json"}} {
		for range b.rounds {
			began := time.Now()
			if _, err := command(append([]string{netfreeze}, args...)...); err != nil {
				return err
			}
			times.add("netfreeze "+strings.Join(args, " "), time.Since(began).Seconds()*1000)
		}
	}
	for i, l := range loads {
		verb := []string{"thaw", "kill"}[i%2]
		began := time.Now()
		if _, err := command(netfreeze, verb, fmt.Sprint(l.pid)); err != nil {
			return err
		}
		times.add("netfreeze "+verb+" of one container", time.Since(began).Seconds()*1000)
	}
	return nil
}
