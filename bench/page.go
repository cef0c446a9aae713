// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"fmt"
	"strings"
	"text/template"
)

//go:embed page.md
var pageText string

// page returns the text of README.md, made from page.md and the results. A plot
// is shown if it is among the files.
func (r *results) page(files map[string]string) (string, error) {
	t, err := template.New("page").Funcs(template.FuncMap{
		"matrix":  r.matrix,
		"table":   r.table,
		"figure":  figure,
		"verdict": verdict,
		"plot": func(name, about string) string {
			if files[name] == "" {
				return ""
			}
			return fmt.Sprintf("![%s](%s)\n", about, name)
		},
		"shapes": func() []shape { return shapes },
		"file":   func(s shape) string { return s.group() + ".svg" },
	}).Parse(pageText)
	if err != nil {
		return "", err
	}
	text, err := execute(t, r)
	return strings.TrimSpace(text) + "\n", err
}

// table returns a table for each of the groups, with everything that is known
// about each row.
func (r *results) table(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		g := r.group(name)
		if g == nil {
			continue
		}
		ratio := ""
		if g.RatioOf != "" {
			ratio = "ratio to " + g.RatioOf
		}
		fmt.Fprintf(&b, "\n**%s.** %s\n\n| | %s | quartiles | %s | n |\n|---|--:|--:|--:|--:|\n", g.Title, g.About, g.Unit, ratio)
		for _, row := range g.Rows {
			of := ""
			if row.Ratio != 0 {
				of = figure(row.Ratio)
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %d |\n", row.Case, figure(row.Median), spreadOf(row.Summary), of, row.N)
		}
	}
	return b.String()
}

// matrix returns one table with the groups side by side: their medians, or what
// each case adds, followed by the quartiles.
func (r *results) matrix(prefix string, added bool) string {
	groups := r.withPrefix(prefix)
	if len(groups) == 0 {
		return "Not measured in this run.\n"
	}
	var b strings.Builder
	head, rule := "|", "|---|"
	for _, g := range groups {
		_, title, found := strings.Cut(g.Title, ": ")
		if !found {
			title = g.Title
		}
		head += " | " + title + ", " + g.Unit
		rule += "--:|"
	}
	fmt.Fprintf(&b, "%s |\n%s\n", head, rule)
	for _, row := range groups[0].Rows {
		b.WriteString("| " + row.Case)
		for _, g := range groups {
			cell := g.row(row.Case)
			switch {
			case cell == nil:
				b.WriteString(" | ")
			case added:
				fmt.Fprintf(&b, " | %s (%s)", figure(cell.Added.Median), spreadOf(*cell.Added))
			default:
				fmt.Fprintf(&b, " | %s (%s)", figure(cell.Median), spreadOf(cell.Summary))
			}
		}
		b.WriteString(" |\n")
	}
	return b.String()
}
