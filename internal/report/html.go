// SPDX-License-Identifier: Apache-2.0

package report

import (
	_ "embed"
	"html/template"
	"io"
	"sync"

	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
)

//go:embed page.html
var pageSource string

// page is parsed when it is needed: the settler is the same program, and CRIU waits for
// its start.
var page = sync.OnceValue(func() *template.Template { return template.Must(template.New("page").Parse(pageSource)) })

// HTML writes a report as one page that needs nothing else.
func HTML(w io.Writer, r *journal.Report) error {
	type row struct {
		Time, After, Text string
		Alarm             bool
	}
	type flow struct{ Local, Remote, In, Out string }
	data := struct {
		Op, Who, Verdict string
		Good             bool
		Facts            [][2]string
		Lines            []row
		Flows            []flow
		Drawing          drawing
	}{
		Op: r.Op, Who: printable.Text(who(r)), Verdict: Verdict(r), Facts: facts(r), Drawing: draw(r),
		Good: r.Outcome != journal.Failed && r.Outcome != journal.Kept && r.Outcome != journal.Refused && r.Outcome != "",
	}
	for _, l := range lines(r) {
		data.Lines = append(data.Lines, row{l.at.Local().Format("15:04:05.000"), "+" + ms(l.at.Sub(r.Began)), printable.Text(l.text), l.alarm})
	}
	for _, f := range r.Flows {
		in, out := firstBytes(f)
		data.Flows = append(data.Flows, flow{f.Local.String(), f.Remote.String(), in, out})
	}
	return page().Execute(w, data)
}
