// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
)

// metrics collects samples in the text format of Prometheus.
type metrics struct{ b strings.Builder }

// family begins a metric. All are gauges: reports are rotated away, so nothing here only
// grows.
func (m *metrics) family(name, help string) {
	fmt.Fprintf(&m.b, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
}

// sample adds one value; labels are names and values in turn.
func (m *metrics) sample(name string, value float64, labels ...string) {
	m.b.WriteString(name)
	sep := "{"
	for pair := range slices.Chunk(labels, 2) {
		fmt.Fprintf(&m.b, "%s%s=%q", sep, pair[0], printable.Text(pair[1]))
		sep = ","
	}
	if len(labels) > 0 {
		m.b.WriteByte('}')
	}
	fmt.Fprintf(&m.b, " %g\n", value)
}

// states are those that status knows: each has a sample, so that an alert sees a 0.
var states = []string{"running", "committed", "held", "isolated", "ended", "frozen", "orphaned", "criu-leftover", "guard", "unmet"}

// writeMetrics prints what is frozen, and what the reports say, for the textfile
// collector of node_exporter.
func writeMetrics(w io.Writer, list []freeze.Status, reports []*journal.Report) error {
	var m metrics
	count := map[string]int{}
	for _, s := range states {
		count[s] = 0
	}
	for _, s := range list {
		count[s.State]++
	}
	m.family("netfreeze_freezes", "Freezes and transactions on this node, by state.")
	for _, s := range slices.Sorted(maps.Keys(count)) {
		m.sample("netfreeze_freezes", float64(count[s]), "state", s)
	}
	m.family("netfreeze_freeze_left_seconds", "Time until the kernel ends a freeze by itself.")
	for _, s := range list {
		if s.Frozen {
			m.sample("netfreeze_freeze_left_seconds", s.LeftSeconds, "id", s.ID, "container", s.Container, "pod", s.Pod, "netns", place(s), "state", s.State)
		}
	}
	m.reports(reports)
	_, err := io.WriteString(w, m.b.String())
	return err
}

// reports adds what the reports that are kept say.
func (m *metrics) reports(reports []*journal.Report) {
	type kind struct{ op, outcome string }
	count, last := map[kind]int{}, map[kind]time.Time{}
	frozen := map[string]float64{}
	traffic := -1.0
	for _, r := range reports {
		k := kind{r.Op, r.Outcome}
		if k.outcome == "" {
			k.outcome = "unknown"
		}
		count[k]++
		last[k] = r.Began
		if d, ok := r.FrozenFor(); ok {
			frozen[r.Op] = d.Seconds()
		}
		if _, at, carried := r.FirstByte(); carried > 0 {
			traffic = at.Seconds()
		}
	}
	kinds := slices.SortedFunc(maps.Keys(count), func(a, b kind) int { return strings.Compare(a.op+" "+a.outcome, b.op+" "+b.outcome) })
	m.family("netfreeze_reports", "Dumps and restores whose reports are kept, by outcome.")
	for _, k := range kinds {
		m.sample("netfreeze_reports", float64(count[k]), "op", k.op, "outcome", k.outcome)
	}
	m.family("netfreeze_last_timestamp_seconds", "When the last dump or restore with an outcome began.")
	for _, k := range kinds {
		m.sample("netfreeze_last_timestamp_seconds", float64(last[k].UnixMilli())/1000, "op", k.op, "outcome", k.outcome)
	}
	m.family("netfreeze_last_frozen_seconds", "How long the last dump or restore that was thawed had the network frozen.")
	for _, op := range slices.Sorted(maps.Keys(frozen)) {
		m.sample("netfreeze_last_frozen_seconds", frozen[op], "op", op)
	}
	if traffic >= 0 {
		m.family("netfreeze_last_first_byte_seconds", "When the last connection of the last restore carried bytes, after the thaw.")
		m.sample("netfreeze_last_first_byte_seconds", traffic)
	}
}
