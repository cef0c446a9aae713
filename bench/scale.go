package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// scale holds many containers at once: each a tree in a namespace of its own,
// with one connection.
func (b *bench) scale() error {
	say("scale: %d containers", b.held)
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
		s, err := b.newSpace("held")
		if err != nil {
			return err
		}
		l, err := startLoad(s, s, 1, 1, []string{"127.0.0.1"})
		if err != nil {
			s.remove()
			return err
		}
		loads = append(loads, l)
	}
	times := &Group{
		Name: "scale-time", Title: fmt.Sprintf("Time with %d containers", b.held), Unit: "ms",
		About: "Each sample is one container's, or one call of netfreeze status.",
	}
	memory := &Group{
		Name: "scale-memory", Title: fmt.Sprintf("Memory with %d containers", b.held), Unit: "KiB",
		About: "The settlers' is what they do not share with others, added up (PSS). After CRIU's end no settler is left.",
	}
	counts := &Group{Name: "scale-count", Title: "Processes of ours", Unit: "processes", About: "Settlers that live."}
	err := errors.Join(b.transactions(loads, times, memory, counts), b.hold(loads, times, memory, counts))
	if err != nil {
		return err
	}
	for _, g := range []*Group{times, memory, counts} {
		g.summarize("")
		b.results.add(g)
	}
	return nil
}

// transactions has a dump of every tree under way at the same time.
func (b *bench) transactions(loads []*load, times, mem, counts *Group) error {
	var callers []*caller
	var errs []error
	for _, l := range loads {
		c, err := startCaller()
		if err != nil {
			errs = append(errs, err)
			break
		}
		callers = append(callers, c)
		ms, err := c.act(hook, "pre-dump", l.pid, l.dir)
		if err != nil {
			errs = append(errs, err)
			break
		}
		times.add("pre-dump, all others under way", ms)
	}
	name := fmt.Sprintf("%d dumps under way", len(loads))
	var sum float64
	pids := settlers()
	for _, pid := range pids {
		sum += memory(pid, "smaps_rollup", "Pss")
	}
	counts.add(name, float64(len(pids)))
	mem.add(name+": settlers", sum)
	for _, c := range callers {
		began := time.Now()
		errs = append(errs, c.end())
		times.add("undoing one of them after CRIU's end", time.Since(began).Seconds()*1000)
	}
	return errors.Join(errs...)
}

// hold dumps every tree with policy hold by CRIU, looks at all of them, and
// ends them one by one.
func (b *bench) hold(loads []*load, times, mem, counts *Group) error {
	v := variant{name: "hold", lock: "skip", scripts: []string{hook}}
	for i, l := range loads {
		began := time.Now()
		if _, err := l.dump(v); err != nil {
			return err
		}
		if err := l.settled(v); err != nil {
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
	for _, l := range []struct {
		name string
		args []string
	}{{"netfreeze status", []string{netfreeze, "status"}}, {"netfreeze status -o json", []string{netfreeze, "status", "-o", "json"}}} {
		for range b.rounds {
			began := time.Now()
			if _, err := command(l.args...); err != nil {
				return err
			}
			times.add(l.name, time.Since(began).Seconds()*1000)
		}
	}
	for i, l := range loads {
		verb := []string{"thaw", "kill"}[i%2]
		began := time.Now()
		if _, err := command(netfreeze, verb, fmt.Sprint(l.pid)); err != nil {
			return err
		}
		times.add("netfreeze "+verb+", of one of them", time.Since(began).Seconds()*1000)
	}
	return nil
}
