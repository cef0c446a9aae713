// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"strings"
)

// contextLines is how many unchanged lines a diff shows around a change.
const contextLines = 3

// Diff returns the change as a unified diff with one hunk, or "" if it changes
// nothing.
func (c *Change) Diff() string {
	if !c.changed() {
		return ""
	}
	before, after := splitLines(c.Before), splitLines(c.After)
	same := 0
	for same < len(before) && same < len(after) && before[same] == after[same] {
		same++
	}
	tail := 0
	for tail < len(before)-same && tail < len(after)-same && before[len(before)-1-tail] == after[len(after)-1-tail] {
		tail++
	}
	first := max(same-contextLines, 0)
	lastBefore := min(len(before)-tail+contextLines, len(before))
	lastAfter := min(len(after)-tail+contextLines, len(after))

	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", name(c.Path, c.Before), name(c.Path, c.After))
	fmt.Fprintf(&b, "@@ -%s +%s @@\n", span(first, lastBefore), span(first, lastAfter))
	write := func(sign string, lines []string) {
		for _, l := range lines {
			b.WriteString(sign + l)
			if !strings.HasSuffix(l, "\n") {
				b.WriteString("\n\\ No newline at end of file\n")
			}
		}
	}
	write(" ", before[first:same])
	write("-", before[same:len(before)-tail])
	write("+", after[same:len(after)-tail])
	write(" ", before[len(before)-tail:lastBefore])
	return b.String()
}

func splitLines(content []byte) []string {
	lines := strings.SplitAfter(string(content), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// name returns the file's name for the head of a diff.
func name(path string, content []byte) string {
	if content == nil {
		return "/dev/null"
	}
	return path
}

// span prints the range of lines from first up to but without last, both counted
// from 0.
func span(first, last int) string {
	if first == last {
		return fmt.Sprintf("%d,0", first)
	}
	return fmt.Sprintf("%d,%d", first+1, last-first)
}
