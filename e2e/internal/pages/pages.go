// SPDX-License-Identifier: Apache-2.0

// Package pages reads the blocks of code in the documentation, and the comments above them
// that say what becomes of each: a test runs it, or why none does.
//
//	<!-- recipe NAME PART -->   a part of a recipe: TestRecipes runs it
//	<!-- run NAME PART -->      a step of a scenario: the test of the scenario runs it
//	<!-- config -->             a netfreeze.toml: it is checked
//	<!-- not run: REASON -->    nobody runs it
//
// A comment holds for the next block only.
package pages

import (
	"fmt"
	"strings"
)

// Block is a block of code.
type Block struct {
	Line   int    // of its first line in the page, from 1
	Kind   string // recipe, run, config, not run, or empty where no comment is above it
	Name   string // of recipes and scenarios; the reason of what is not run
	Part   string // of the recipe or scenario
	Code   string // without the indentation; each line ends with a newline
	Fenced bool
}

// Kinds of blocks.
const (
	Recipe = "recipe"
	Run    = "run"
	Config = "config"
	NotRun = "not run"
)

// Read returns the blocks of a page in Markdown, in order: what is fenced by ``` or ~~~,
// and what is indented by four blanks or more after an empty line. A comment that looks
// like one of ours, and is not, or has no block, is an error.
func Read(text string) ([]Block, error) {
	r := reader{}
	for line := range strings.Lines(text) {
		r.n++
		if err := r.line(strings.TrimSuffix(line, "\n")); err != nil {
			return nil, fmt.Errorf("line %d: %w", r.n, err)
		}
	}
	if r.fence != "" {
		return nil, fmt.Errorf("the block in line %d has no end", r.open.Line)
	}
	r.end()
	if r.mark != nil {
		return nil, fmt.Errorf("line %d: a comment without a block", r.mark.Line)
	}
	return r.blocks, nil
}

type reader struct {
	n      int
	blocks []Block
	mark   *Block // what the last comment says of the next block
	open   *Block // being read
	fence  string // that ends it
	blank  int    // empty lines since its last line
	text   bool   // the last line was text: what is indented below belongs to it
}

func (r *reader) line(line string) error {
	trimmed := strings.TrimSpace(line)
	if r.fence != "" {
		if trimmed == r.fence {
			r.fence = ""
			r.end()
		} else {
			r.open.Code += line + "\n"
		}
		return nil
	}
	switch {
	case strings.HasPrefix(trimmed, "```"), strings.HasPrefix(trimmed, "~~~"):
		r.end()
		r.begin()
		r.fence, r.open.Fenced = trimmed[:3], true
	case trimmed == "":
		r.blank++
		r.text = false
	case strings.HasPrefix(line, "    ") && !r.text:
		if r.open == nil {
			r.begin()
		}
		r.open.Code += strings.Repeat("\n", r.blank) + line + "\n"
		r.blank = 0
	default:
		r.end()
		r.text = true
		mark, err := comment(trimmed)
		if err != nil || mark == nil {
			return err
		}
		if r.mark != nil {
			return fmt.Errorf("the comment in line %d has no block", r.mark.Line)
		}
		mark.Line = r.n
		r.mark = mark
	}
	return nil
}

func (r *reader) begin() {
	r.open = &Block{}
	if r.mark != nil {
		*r.open = *r.mark
	}
	r.open.Line, r.mark, r.blank = r.n, nil, 0
}

// end ends the block that is being read, if there is one.
func (r *reader) end() {
	if r.open != nil {
		r.open.Code = outdent(r.open.Code)
		r.blocks = append(r.blocks, *r.open)
	}
	r.open, r.blank = nil, 0
}

// outdent takes away what all lines are indented by.
func outdent(code string) string {
	common := -1
	for line := range strings.Lines(code) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		if n := len(line) - len(strings.TrimLeft(line, " ")); common < 0 || n < common {
			common = n
		}
	}
	var b strings.Builder
	for line := range strings.Lines(code) {
		b.WriteString(line[min(max(common, 0), len(line)-1):])
	}
	return b.String()
}

// comment reads a comment, and returns nil if it is none of ours.
func comment(line string) (*Block, error) {
	text, ok := strings.CutPrefix(line, "<!--")
	if !ok {
		return nil, nil
	}
	text, ok = strings.CutSuffix(text, "-->")
	text = strings.TrimSpace(text)
	words := strings.Fields(text)
	reason, notRun := strings.CutPrefix(text, NotRun+":")
	switch {
	case !ok || len(words) == 0:
		return nil, nil
	case notRun:
		if strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%q has no reason", line)
		}
		return &Block{Kind: NotRun, Name: strings.TrimSpace(reason)}, nil
	case words[0] == Config && len(words) == 1:
		return &Block{Kind: Config}, nil
	case words[0] == Recipe || words[0] == Run:
		if len(words) != 3 {
			return nil, fmt.Errorf("%q: a name and a part are needed", line)
		}
		return &Block{Kind: words[0], Name: words[1], Part: words[2]}, nil
	case words[0] == "not":
		return nil, fmt.Errorf("%q: is %q meant?", line, NotRun+":")
	}
	return nil, nil
}
