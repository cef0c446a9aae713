// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// counts is a cell of the table.
type counts struct{ runs, hit, excused, broken, failed int }

// table counts runs by fault and step.
type table struct {
	cells map[string]*counts
	total counts
	why   map[string]int // how often each promise was broken
}

func newTable() *table { return &table{cells: map[string]*counts{}, why: map[string]int{}} }

func (t *table) add(r result) {
	key := newScenario(r.Seed).key()
	if t.cells[key] == nil {
		t.cells[key] = &counts{}
	}
	for _, c := range []*counts{t.cells[key], &t.total} {
		c.runs++
		switch {
		case r.Failed != "":
			c.failed++
		case len(r.Broken) > 0:
			c.broken++
		}
		if r.Hit {
			c.hit++
		}
		if r.Excused != "" {
			c.excused++
		}
	}
	for _, b := range r.Broken {
		promise, _, _ := strings.Cut(b, ":")
		t.why[promise]++
	}
}

// String returns the table: a line for each fault and step.
func (t *table) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	line := func(fault, step string, c *counts) {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\n", fault, step, c.runs, c.hit, c.excused, c.broken, c.failed)
	}
	fmt.Fprintln(w, "FAULT\tSTEP\tRUNS\tSTRUCK\tEXCUSED\tBROKEN\tNOT DONE")
	keys := make([]string, 0, len(t.cells))
	for k := range t.cells {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fault, step, _ := strings.Cut(k, "@")
		line(fault, step, t.cells[k])
	}
	line("all", "", &t.total)
	_ = w.Flush()
	promises := make([]string, 0, len(t.why))
	for p := range t.why {
		promises = append(promises, p)
	}
	slices.Sort(promises)
	for _, p := range promises {
		fmt.Fprintf(&b, "broken %d times: %s\n", t.why[p], p)
	}
	return b.String()
}
