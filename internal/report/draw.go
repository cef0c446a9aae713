// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
)

// drawing is what the page draws: three rows over one scale of time, in units of SVG.
type drawing struct {
	Width  float64
	Ticks  []tick
	Frozen []bar // the network's row: where it was frozen
	Calls  []bar // CRIU's row: its actions
	Bytes  []bar // the connections' row: their first bytes
	Note   string
}

type tick struct {
	X    float64
	Text string
}

type bar struct {
	X, Width float64
	Text     string // what it is, in full
	Label    string // as much of it as there is room for
	Row      int    // of several that would lie over each other
}

const (
	drawWidth = 900.0
	minBar    = 1.5  // so that the shortest thing can be seen
	charWidth = 6.2  // of a label
	labelRows = 4    // rows of labels below CRIU's bars
	maxDrawn  = 2000 // first bytes
)

// draw places the events of a report.
func draw(r *journal.Report) drawing {
	began, end := span(r)
	length := end.Sub(began)
	x := func(t time.Time) float64 {
		return drawWidth * math.Min(1, math.Max(0, float64(t.Sub(began))/float64(length)))
	}
	d := drawing{Width: drawWidth}
	step := tickStep(length)
	for at := time.Duration(0); at <= length; at += step {
		d.Ticks = append(d.Ticks, tick{x(began.Add(at)), short(at)})
	}
	place := func(from, to time.Time) bar { return bar{X: x(from), Width: math.Max(minBar, x(to)-x(from))} }
	var frozen time.Time
	rows := make([]float64, labelRows) // where each row of labels is free
	for _, e := range r.Events {
		switch e.Kind {
		case journal.Frozen:
			frozen = e.At
		case journal.Thawed:
			if !frozen.IsZero() {
				b := place(frozen, e.At)
				b.Text = "frozen for " + ms(e.At.Sub(frozen))
				d.Frozen, frozen = append(d.Frozen, b), time.Time{}
			}
		case journal.Action:
			b := place(e.At, e.At.Add(time.Duration(e.TookNS)))
			b.Text = fmt.Sprintf("%s: %s", e.Name, ms(time.Duration(e.TookNS)))
			for i, free := range rows {
				if b.X >= free {
					b.Label, b.Row, rows[i] = e.Name, i, b.X+charWidth*float64(len(e.Name)+1)
					break
				}
			}
			d.Calls = append(d.Calls, b)
		default:
		}
	}
	if !frozen.IsZero() {
		b := place(frozen, end)
		b.Text = "frozen, and not thawed in this time"
		d.Frozen = append(d.Frozen, b)
	}
	d.Bytes, d.Note = flows(r, place)
	return d
}

// flows places the first bytes of the connections after the thaw.
func flows(r *journal.Report, place func(from, to time.Time) bar) (bars []bar, note string) {
	if r.Thawed == nil || len(r.Flows) == 0 {
		return nil, ""
	}
	_, last, carried := r.FirstByte()
	for _, f := range r.Flows[:min(len(r.Flows), maxDrawn)] {
		if first, ok := f.First(); ok {
			at := r.Thawed.Add(first)
			b := place(at, at)
			b.Text = fmt.Sprintf("%s: first byte %s after the thaw", f.Remote, ms(first))
			bars = append(bars, b)
		}
	}
	return bars, fmt.Sprintf("%d of %d, the last one %s after the thaw", carried, len(r.Flows), ms(last))
}

// span returns the time that is drawn: from the first event to the last one that
// belongs together. What comes long after the outcome (the thaw of a hold) would make
// everything before it a point.
func span(r *journal.Report) (began, end time.Time) {
	began = r.Began
	for _, e := range r.Events {
		if e.At.Before(began) {
			began = e.At
		}
	}
	end = began
	for _, e := range r.Events {
		if e.Kind == journal.Carried || e.Kind == journal.Message && r.Outcome != "" {
			continue // known later than it was
		}
		at := e.At.Add(time.Duration(e.TookNS))
		if at.After(end) && (e.Kind != journal.Thawed || at.Sub(end) < time.Minute) {
			end = at
		}
		if e.Kind == journal.Outcome {
			break
		}
	}
	if _, last, carried := r.FirstByte(); carried > 0 && r.Thawed != nil && r.Thawed.Add(last).After(end) {
		end = r.Thawed.Add(last)
	}
	return began, end.Add(max(end.Sub(began)/20, time.Millisecond))
}

// tickStep returns a round step that gives about six to twelve ticks.
func tickStep(length time.Duration) time.Duration {
	const wanted = 10
	step := max(1, time.Duration(math.Pow(10, math.Floor(math.Log10(float64(length)/wanted)))))
	for _, times := range []time.Duration{1, 2, 5} {
		if length/(step*times) <= wanted {
			return step * times
		}
	}
	return step * 10
}

func short(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	return d.String()
}
