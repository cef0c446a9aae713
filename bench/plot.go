// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"text/template"
	"time"
)

// A plot is an SVG file without scripts, with its numbers as text, readable on
// light and on dark pages.

// bars is a plot of horizontal bars with the quartiles as whiskers.
type bars struct {
	Title, Unit   string
	Width, Height int
	Bars          []bar
	Ticks         []mark
	Bottom        int
}

type bar struct {
	Label, Value   string
	Y, Mid         int
	X, Len, Lo, Hi float64
	Color          string
}

type mark struct {
	At    float64
	Label string
}

const (
	colorOurs  = "#2563eb"
	colorOther = "#9ca3af"
)

var barsSVG = template.Must(template.New("bars").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="white"/>
<text x="16" y="24" font-size="16" font-weight="bold">{{.Title}}</text>
{{range .Ticks}}<line x1="{{.At}}" x2="{{.At}}" y1="40" y2="{{$.Bottom}}" stroke="#e5e7eb"/>
<text x="{{.At}}" y="{{$.Height}}" dy="-12" text-anchor="middle" fill="#4b5563">{{.Label}}</text>
{{end}}{{range .Bars}}<text x="252" y="{{.Mid}}" dy="4" text-anchor="end">{{.Label}}</text>
<rect x="{{.X}}" y="{{.Y}}" width="{{.Len}}" height="18" fill="{{.Color}}"/>
<line x1="{{.Lo}}" x2="{{.Hi}}" y1="{{.Mid}}" y2="{{.Mid}}" stroke="black"/>
<text x="{{.Hi}}" y="{{.Mid}}" dx="6" dy="4">{{.Value}}</text>
{{end}}</svg>
`))

// barPlot draws a bar for each row, with the summary that of returns.
func barPlot(title, unit string, rows []Row, of func(Row) Summary) (string, error) {
	const left, right, top, step = 260, 660, 48, 28
	least, most := 0.0, 0.0
	for _, r := range rows {
		s := of(r)
		least, most = min(least, s.Low), max(most, s.High)
	}
	axis := ticks(least, most)
	least = min(least, axis[0])
	at := func(v float64) float64 { return round1(left + (v-least)/(most-least)*(right-left)) }
	b := bars{Title: title, Unit: unit, Width: 740, Height: top + step*len(rows) + 36, Bottom: top + step*len(rows)}
	for _, v := range axis {
		b.Ticks = append(b.Ticks, mark{at(v), figure(v) + " " + unit})
	}
	for i, r := range rows {
		s := of(r)
		color := colorOther
		if strings.Contains(r.Case, "netfreeze") || strings.Contains(r.Case, "--split") {
			color = colorOurs
		}
		b.Bars = append(b.Bars, bar{
			Label: r.Case, Value: figure(s.Median), Y: top + i*step, Mid: top + i*step + 9,
			X: at(min(0, s.Median)), Len: round1(math.Abs(at(s.Median) - at(0))), Lo: at(s.Low), Hi: at(s.High), Color: color,
		})
	}
	return execute(barsSVG, b)
}

// lines is a plot of curves on logarithmic axes.
type lines struct {
	Title, XTitle, YTitle string
	X, Y                  []mark
	Curves                []curve
}

type curve struct {
	Label, Color, Points string
	Dots                 []dot
	LabelY               int
}

type dot struct{ X, Y, Lo, Hi float64 }

var linesSVG = template.Must(template.New("lines").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 420" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="white"/>
<text x="16" y="24" font-size="16" font-weight="bold">{{.Title}}</text>
<text x="300" y="410" text-anchor="middle">{{.XTitle}}</text>
<text x="16" y="205" text-anchor="middle" transform="rotate(-90 16 205)">{{.YTitle}}</text>
{{range .X}}<line x1="{{.At}}" x2="{{.At}}" y1="44" y2="364" stroke="#e5e7eb"/><text x="{{.At}}" y="382" text-anchor="middle" fill="#4b5563">{{.Label}}</text>
{{end}}{{range .Y}}<line x1="80" x2="530" y1="{{.At}}" y2="{{.At}}" stroke="#e5e7eb"/><text x="74" y="{{.At}}" dy="4" text-anchor="end" fill="#4b5563">{{.Label}}</text>
{{end}}{{range .Curves}}{{$c := .Color}}<polyline points="{{.Points}}" fill="none" stroke="{{$c}}" stroke-width="2"/>
{{range .Dots}}<line x1="{{.X}}" x2="{{.X}}" y1="{{.Lo}}" y2="{{.Hi}}" stroke="{{$c}}"/><circle cx="{{.X}}" cy="{{.Y}}" r="3.5" fill="{{$c}}"/>
{{end}}<rect x="545" y="{{.LabelY}}" width="14" height="4" fill="{{$c}}"/><text x="565" y="{{.LabelY}}" dy="7">{{.Label}}</text>
{{end}}</svg>
`))

// series is one curve: the summaries and their places on the x axis.
type series struct {
	label  string
	xs     []float64
	values []Summary
}

var palette = []string{"#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#6b7280"}

// linePlot draws the curves; values that have no logarithm are put on the lower
// edge.
func linePlot(title, xTitle, yTitle string, xLabel, yLabel func(float64) string, all []series) (string, error) {
	var xs, ys []float64
	for _, s := range all {
		xs = append(xs, s.xs...)
		for _, v := range s.values {
			ys = append(ys, v.Low, v.Median, v.High)
		}
	}
	ys = slices.DeleteFunc(ys, func(y float64) bool { return y <= 0 })
	if len(xs) == 0 || len(ys) == 0 {
		return "", nil
	}
	floor := func(v float64) float64 { return math.Floor(math.Log10(v)) }
	x0, x1 := floor(slices.Min(xs)), math.Ceil(math.Log10(slices.Max(xs)))
	y0, y1 := floor(slices.Min(ys)), math.Ceil(math.Log10(slices.Max(ys)))
	x1, y1 = max(x1, x0+1), max(y1, y0+1)
	atX := func(v float64) float64 { return round1(80 + (math.Log10(v)-x0)/(x1-x0)*450) }
	atY := func(v float64) float64 {
		return round1(364 - (max(math.Log10(max(v, 1e-9)), y0)-y0)/(y1-y0)*320)
	}
	p := lines{Title: title, XTitle: xTitle, YTitle: yTitle}
	for e := x0; e <= x1; e++ {
		p.X = append(p.X, mark{atX(math.Pow(10, e)), xLabel(math.Pow(10, e))})
	}
	for e := y0; e <= y1; e++ {
		p.Y = append(p.Y, mark{atY(math.Pow(10, e)), yLabel(math.Pow(10, e))})
	}
	for i, s := range all {
		c := curve{Label: s.label, Color: palette[i%len(palette)], LabelY: 60 + 22*i}
		for j, v := range s.values {
			d := dot{atX(s.xs[j]), atY(v.Median), atY(v.Low), atY(v.High)}
			c.Dots = append(c.Dots, d)
			c.Points += fmt.Sprintf("%g,%g ", d.X, d.Y)
		}
		p.Curves = append(p.Curves, c)
	}
	return execute(linesSVG, p)
}

func execute(t *template.Template, data any) (string, error) {
	var b strings.Builder
	err := t.Execute(&b, data)
	return b.String(), err
}

func round1(v float64) float64 { return math.Round(v*10) / 10 }

// ticks returns about five round numbers, the first no greater than least and the
// last near most.
func ticks(least, most float64) (at []float64) {
	raw := max(most-least, 1e-9) / 5
	step := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5, 10} {
		if step*m >= raw {
			step *= m
			break
		}
	}
	for v := math.Floor(least/step) * step; v <= most; v += step {
		at = append(at, v)
	}
	return at
}

// plots draws what was measured, and adds each plot to files by its name.
func (r *results) plots(files map[string]string) error {
	add := func(name, svg string, err error) error {
		if svg != "" {
			files[name] = svg
		}
		return err
	}
	for _, s := range shapes {
		if g := r.group(s.group()); g != nil {
			svg, err := barPlot("Added to the frozen time: "+s.String(), g.Unit, g.Rows[1:], func(r Row) Summary { return *r.Added })
			if err := add(g.Name+".svg", svg, err); err != nil {
				return err
			}
		}
	}
	if g := r.group("foreign"); g != nil {
		svg, err := barPlot("A foreign action, exec to exit", g.Unit, g.Rows, func(r Row) Summary { return r.Summary })
		if err := add("foreign.svg", svg, err); err != nil {
			return err
		}
	}
	svg, err := linePlot("Our actions while the tasks are stopped", "connections", "ms", plain, plain,
		r.curves("growth-", func(c string) (x float64) { _, _ = fmt.Sscan(c, &x); return x }))
	if err := add("growth.svg", svg, err); err != nil {
		return err
	}
	svg, err = linePlot("First byte after network-unlock", "length of the outage, s", "ms", plain, plain,
		r.curves("resume-", func(c string) float64 { d, _ := time.ParseDuration(c); return d.Seconds() }))
	return add("resume.svg", svg, err)
}

// seriesNames makes labels of the groups' short names.
var seriesNames = strings.NewReplacer("-4", ", IPv4", "-6", ", IPv6", "netns", "scope netns",
	"connections", "scope connections", "none", "neither", "nudge", "nudge only", "quiet", "quiet peers")

// curves returns a series for each group whose name begins with the prefix,
// labelled by the rest of the name.
func (r *results) curves(prefix string, x func(string) float64) (all []series) {
	for _, g := range r.withPrefix(prefix) {
		s := series{label: seriesNames.Replace(strings.TrimPrefix(g.Name, prefix))}
		for _, row := range g.Rows {
			s.xs = append(s.xs, x(row.Case))
			s.values = append(s.values, row.Summary)
		}
		all = append(all, s)
	}
	return all
}

func plain(v float64) string { return fmt.Sprintf("%g", v) }
