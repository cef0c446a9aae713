// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
)

// Text prints a report for a terminal.
func Text(w io.Writer, r *journal.Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s: %s\n\n", r.Op, who(r), Verdict(r))
	t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	for _, row := range facts(r) {
		fmt.Fprintf(t, "%s\t%s\n", row[0], row[1])
	}
	_ = t.Flush() // to memory
	b.WriteByte('\n')
	t = tabwriter.NewWriter(&b, 0, 4, 2, ' ', tabwriter.AlignRight)
	for _, l := range lines(r) {
		mark := " "
		if l.alarm {
			mark = "!"
		}
		fmt.Fprintf(t, "%s\t+%s\t %s %s\n", l.at.Local().Format("15:04:05.000"), ms(l.at.Sub(r.Began)), mark, l.text)
	}
	_ = t.Flush()
	if len(r.Flows) > 0 {
		b.WriteString("\nfirst byte after the thaw:\n")
		t = tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "LOCAL\tREMOTE\tIN\tOUT")
		for _, f := range r.Flows {
			in, out := firstBytes(f)
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Local, f.Remote, in, out)
		}
		_ = t.Flush()
	}
	for text := range strings.Lines(b.String()) {
		text = printable.Text(strings.TrimRight(text, " \n"))
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return nil
}

// facts are the rows that both forms of a report begin with.
func facts(r *journal.Report) [][2]string {
	connections := fmt.Sprint(r.Connections)
	if r.Connections > journal.MaxFlows {
		connections += fmt.Sprintf(" (the report names %d)", journal.MaxFlows)
	}
	rows := [][2]string{
		{"report", r.ID},
		{"began", r.Began.Local().Format("2006-01-02 15:04:05.000 -0700")},
		{"network frozen", FrozenTime(r)},
		{"connections", connections},
	}
	if r.Tasks > 0 {
		rows = append(rows, [2]string{"tasks", fmt.Sprint(r.Tasks)})
	}
	if r.NetNS != "" {
		rows = append(rows, [2]string{"frozen was", fmt.Sprintf("%s, scope %s, by %s", r.NetNS, r.Scope, r.Backend)})
	}
	if r.Policy != "" && r.Op == "dump" {
		rows = append(rows, [2]string{"policy", r.Policy + ", by " + r.Why})
	}
	return rows
}
