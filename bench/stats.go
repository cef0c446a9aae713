// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
)

// Summary describes a set of samples by their median and, as the spread, their
// quartiles.
type Summary struct {
	Median float64 `json:"median"`
	Low    float64 `json:"quartile_1"`
	High   float64 `json:"quartile_3"`
	N      int     `json:"n"`
}

func summarize(samples []float64) Summary {
	s := slices.Sorted(slices.Values(samples))
	return Summary{quantile(s, 0.5), quantile(s, 0.25), quantile(s, 0.75), len(s)}
}

// quantile returns a quantile of the sorted samples, interpolated between two of
// them.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// Row is one case of a comparison.
type Row struct {
	Case string `json:"case"`
	Summary
	// Added is the median difference from the group's base case, taken round by
	// round, so that what slows both of them down cancels out.
	Added *Summary `json:"added,omitempty"`
	// Ratio is what the case adds, or takes, divided by what the reference adds
	// or takes.
	Ratio   float64   `json:"ratio,omitempty"`
	Samples []float64 `json:"samples"`
}

// Group is one comparison.
type Group struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	About string `json:"about"`
	Unit  string `json:"unit"`
	// RatioOf says what Ratio is relative to.
	RatioOf string `json:"ratio_of,omitempty"`
	Rows    []Row  `json:"rows"`
}

func (g *Group) row(name string) *Row {
	i := slices.IndexFunc(g.Rows, func(r Row) bool { return r.Case == name })
	if i < 0 {
		return nil
	}
	return &g.Rows[i]
}

// add appends a sample to a case.
func (g *Group) add(name string, sample float64) {
	if g.row(name) == nil {
		g.Rows = append(g.Rows, Row{Case: name})
	}
	r := g.row(name)
	r.Samples = append(r.Samples, sample)
}

// summarize fills in the summaries, and the ratios to the case called reference
// if there is one.
func (g *Group) summarize(reference string) {
	for i := range g.Rows {
		g.Rows[i].Summary = summarize(g.Rows[i].Samples)
	}
	if ref := g.row(reference); ref != nil && ref.Median != 0 {
		g.RatioOf = reference
		for i := range g.Rows {
			g.Rows[i].Ratio = g.Rows[i].Median / ref.Median
		}
	}
}

// ratioTo returns the median, over the rounds, of what the case called name takes, less an
// allowance, relative to what the case called base takes. ok is false if either of them was
// not measured.
func (g *Group) ratioTo(name, base string, allowance float64) (ratio float64, ok bool) {
	r, from := g.row(name), g.row(base)
	if r == nil || from == nil {
		return 0, false
	}
	var ratios []float64
	for i := range min(len(r.Samples), len(from.Samples)) {
		ratios = append(ratios, (r.Samples[i]-allowance)/from.Samples[i])
	}
	return summarize(ratios).Median, len(ratios) > 0
}

// addedTo fills in what each case adds to the case called base, and the ratios to
// what the case called reference adds.
func (g *Group) addedTo(base, reference string) {
	g.summarize("")
	from := g.row(base)
	for i := range g.Rows {
		r := &g.Rows[i]
		var diffs []float64
		for j := range min(len(r.Samples), len(from.Samples)) {
			diffs = append(diffs, r.Samples[j]-from.Samples[j])
		}
		added := summarize(diffs)
		r.Added = &added
	}
	if ref := g.row(reference); ref != nil && ref.Added.Median > 0 {
		g.RatioOf = "what " + reference + " adds"
		for i := range g.Rows {
			g.Rows[i].Ratio = g.Rows[i].Added.Median / ref.Added.Median
		}
	}
}
