// SPDX-License-Identifier: Apache-2.0

// Package report prints the reports of package journal for people: as text, and as one
// self-contained HTML page with a drawing of what happened when.
package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
)

// Verdict says in one sentence what became of the dump or restore.
func Verdict(r *journal.Report) string {
	switch r.Outcome {
	case journal.Held:
		return "the tasks are stopped, and their network is frozen"
	case journal.Ended:
		return "the tasks have ended without a packet, and their network stays frozen for a restore"
	case journal.Isolated:
		return "the tasks go on without a network"
	case journal.WentOn:
		return "the tasks went on with their network"
	case journal.Restored:
		return "the tasks run again" + traffic(r)
	case journal.Failed:
		return "CRIU did not succeed, and everything was taken back"
	case journal.Kept:
		return "CRIU did not succeed, and the network namespace stays frozen"
	case journal.Refused:
		return "it was refused before anything was changed"
	}
	return "it is under way, or its settler was killed"
}

func traffic(r *journal.Report) string {
	if len(r.Flows) == 0 {
		return ""
	}
	_, last, carried := r.FirstByte()
	if carried == 0 {
		return fmt.Sprintf("; none of %d connections has carried a byte while it was looked", len(r.Flows))
	}
	return fmt.Sprintf("; %d of %d connections carry bytes again, the last one after %s", carried, len(r.Flows), ms(last))
}

// FrozenTime says how long the network was frozen.
func FrozenTime(r *journal.Report) string {
	if d, ok := r.FrozenFor(); ok {
		return ms(d)
	}
	if r.Frozen != nil {
		return "from " + r.Frozen.Local().Format("15:04:05") + " on"
	}
	return "not at all"
}

// ms prints a duration in milliseconds, or in seconds from one on.
func ms(d time.Duration) string {
	if d >= time.Second {
		return fmt.Sprintf("%.3f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// who names what was dumped or restored.
func who(r *journal.Report) string {
	c := r.Container
	name := cmp.Or(c.Name, c.ID)
	if len(name) > 12 && name == c.ID {
		name = name[:12]
	}
	var parts []string
	if name != "" {
		parts = append(parts, "container "+name)
	}
	if c.Pod != "" {
		parts = append(parts, "pod "+c.Pod)
	}
	if r.Root != 0 {
		parts = append(parts, fmt.Sprintf("process %d", r.Root))
	}
	if len(parts) == 0 {
		parts = append(parts, fmt.Sprintf("what CRIU's process %d worked on", r.CRIU))
	}
	return strings.Join(parts, ", ")
}

// line is one event in words.
type line struct {
	at    time.Time
	text  string
	alarm bool // a warning or an error
}

// lines returns the events of a report in words, in the order of time.
func lines(r *journal.Report) []line {
	var all []line
	for _, e := range r.Events {
		if text := words(e); text != "" {
			alarm := e.Error != "" || e.Level == "warning" || e.Level == "error" || e.Level == "fatal"
			all = append(all, line{e.At, text, alarm})
		}
	}
	slices.SortStableFunc(all, func(a, b line) int { return a.at.Compare(b.at) })
	return all
}

// words says what an event is, "" for what is said elsewhere in a report.
func words(e journal.Event) string {
	switch e.Kind {
	case journal.Action:
		text := fmt.Sprintf("CRIU: %s, done in %s", e.Name, ms(time.Duration(e.TookNS)))
		if e.Error != "" {
			return fmt.Sprintf("CRIU: %s, refused: %s", e.Name, e.Error)
		}
		return text
	case journal.Frozen:
		return "the network is frozen"
	case journal.Thawed:
		return "the network is thawed"
	case journal.Sent:
		return fmt.Sprintf("sent: %s, %d packets", e.Name, e.Packets)
	case journal.Message:
		return strings.ReplaceAll(strings.TrimSpace(e.Text), "\n", "; ")
	case journal.Outcome:
		return "outcome: " + e.Name
	case journal.Begin, journal.Connections, journal.Carried:
	}
	return ""
}

// firstBytes says when a connection carried its first bytes, in each direction.
func firstBytes(f journal.Flow) (in, out string) {
	say := func(ns *int64) string {
		if ns == nil {
			return "none seen"
		}
		return ms(time.Duration(*ns))
	}
	return say(f.InNS), say(f.OutNS)
}
