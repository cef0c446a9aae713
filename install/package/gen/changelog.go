// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
)

// release is one version in CHANGELOG.md.
type release struct {
	version string // empty for [Unreleased]
	date    time.Time
	groups  []group
}

// group is what was added, say, or fixed.
type group struct {
	name  string
	items []string // each on one line
}

// heading is a version's line, as Keep a Changelog has it.
var heading = regexp.MustCompile(`^## \[([^]]+)\](?: - (\d{4}-\d{2}-\d{2}))?\s*$`)

// parseChangelog reads CHANGELOG.md, newest first. A version without a date is an error
// unless it is [Unreleased].
func parseChangelog(text string) ([]release, error) {
	var all []release
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		if m := heading.FindStringSubmatch(line); m != nil {
			r := release{}
			if m[1] != "Unreleased" {
				date, err := time.Parse(time.DateOnly, m[2])
				if err != nil {
					return nil, fmt.Errorf("version %s: %w", m[1], err)
				}
				r = release{version: m[1], date: date}
			}
			all = append(all, r)
			continue
		}
		if strings.HasPrefix(line, "## ") {
			return nil, fmt.Errorf("%q is not the heading of a version", line)
		}
		if len(all) == 0 {
			continue // what stands above the first version
		}
		all[len(all)-1].add(line)
	}
	return all, nil
}

// add takes a line below the heading of a version.
func (r *release) add(line string) {
	if name, ok := strings.CutPrefix(line, "### "); ok {
		r.groups = append(r.groups, group{name: name})
		return
	}
	text := strings.TrimSpace(line)
	if text == "" || len(r.groups) == 0 {
		return
	}
	g := &r.groups[len(r.groups)-1]
	if item, ok := strings.CutPrefix(line, "- "); ok {
		g.items = append(g.items, item)
	} else if n := len(g.items); n > 0 {
		g.items[n-1] += " " + text
	}
}

// writeChangelog prints the changelog of a package. What is unreleased is what the
// package's own version has; without any, the newest version is the package's.
func writeChangelog(w io.Writer, p pkg, format, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	all, err := parseChangelog(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(all) > 0 && all[0].version == "" && len(all[0].groups) == 0 {
		all = all[1:]
	}
	if len(all) == 0 {
		return fmt.Errorf("%s has no version", path)
	}
	_, revision, _ := strings.Cut(p.Version, "-")
	all[0].version = p.Version
	all[0].date = p.Time
	for i := range all[1:] {
		all[i+1].version += "-" + revision
	}
	switch format {
	case "debian":
		return writeDebian(w, all)
	case "rpm":
		return writeRPM(w, all)
	}
	return fmt.Errorf("changelog %q: not one of debian, rpm", format)
}

// writeDebian prints as deb-changelog(5) says.
func writeDebian(w io.Writer, all []release) error {
	var b strings.Builder
	for i, r := range all {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s (%s) unstable; urgency=medium\n\n", project, r.version)
		for _, g := range r.groups {
			if len(g.items) == 0 {
				continue
			}
			fmt.Fprintf(&b, "  [ %s ]\n", g.name)
			for _, item := range g.items {
				b.WriteString(wrap(item, "  * ", "    ", 78))
			}
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, " -- %s  %s\n", maintainer, r.date.Format(time.RFC1123Z))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeRPM prints what nfpm reads, the format of chglog: YAML, whose strings may be
// quoted as in JSON.
func writeRPM(w io.Writer, all []release) error {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "- semver: %q\n  date: %s\n  packager: %q\n  changes:\n", r.version, r.date.Format(time.RFC3339), maintainer)
		for _, g := range r.groups {
			for _, item := range g.items {
				lines := strings.TrimRight(wrap(g.name+": "+item, "", "  ", 78), "\n")
				fmt.Fprintf(&b, "    - note: %q\n", lines)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap breaks a text into lines of at most so many bytes, as far as its words allow.
func wrap(text, first, rest string, width int) string {
	var b strings.Builder
	line := first
	empty := true
	for _, word := range strings.Fields(text) {
		if !empty && len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	b.WriteString(line + "\n")
	return b.String()
}
