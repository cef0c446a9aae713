// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// Problem is one thing that is wrong in a configuration file.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1
	Text string `json:"text"` // the key, its value, and what is allowed
}

// Problems is everything wrong with a file, in the order of its lines. It is
// the error of [Parse].
type Problems []Problem

// Error prints one problem per line, as file:line: text.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = code.Text(ps.Code(), fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text))
	}
	return strings.Join(lines, "\n")
}

// Code implements [code.Coder].
func (Problems) Code() code.Code { return code.Config }

// Parse reads a configuration. What data does not mention is as in [Default]; name
// is the file's name in messages. The error is always a [Problems] that lists
// everything that is wrong, not only the first thing.
func Parse(data []byte, name string) (*Config, error) {
	var doc map[string]any
	if _, err := toml.Decode(string(data), &doc); err != nil {
		return nil, Problems{syntaxProblem(err, name)}
	}
	p := parser{name: name, lines: locate(data)}
	c := Default()
	c.name = name
	p.table("", doc, []field{
		{"backend", word(&p, &c.Backend, backend.All())},
		{"policy", word(&p, &c.Policy, Policies())},
		{"ttl", p.duration(&c.TTL, MinTTL, MaxTTL)},
		{"drain", p.duration(&c.Drain, MinDrain, MaxDrain)},
		{"quiet", word(&p, &c.Quiet, Quiets())},
		{"quiet-time", p.duration(&c.QuietTime, MinQuietTime, MaxQuietTime)},
		{"restore-failure", word(&p, &c.RestoreFailure, RestoreFailures())},
		{"resume", word(&p, &c.Resume, Resumes())},
		{"nudge-packets", p.number(&c.NudgePackets, 1, MaxNudgePackets)},
		{"announce-count", p.number(&c.AnnounceCount, 0, MaxAnnounceCount)},
		{"announce-interval", p.duration(&c.AnnounceInterval, MinAnnounceInterval, MaxAnnounceInterval)},
		{"hold-then-kill", p.duration(&c.HoldThenKill, 0, MaxTTL)},
		{"hold-sigterm", word(&p, &c.HoldSigterm, HoldSigterms())},
		{"restart", word(&p, &c.Restart, Restarts())},
		{"answer", word(&p, &c.Answer, Answers())},
		{"annotations", p.boolean(&c.Annotations)},
		{"log", p.log(&c.Log)},
		{"container", p.rules(&c.Containers)},
	})
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), strings.Compare(a.Text, b.Text))
		})
		return nil, p.problems
	}
	return c, nil
}

// syntaxProblem returns what the TOML library reports, with its line.
func syntaxProblem(err error, name string) Problem {
	var pe toml.ParseError
	if errors.As(err, &pe) {
		return Problem{File: name, Line: max(pe.Position.Line, 1), Text: pe.Message}
	}
	return Problem{File: name, Line: 1, Text: err.Error()}
}

// parser collects problems while it walks the decoded document.
type parser struct {
	name     string
	lines    positions
	problems Problems
}

// setter checks the value found at a place in the document and stores it.
type setter func(at string, v any)

type field struct {
	key string
	set setter
}

func (p *parser) problem(at, format string, args ...any) {
	p.problems = append(p.problems, Problem{File: p.name, Line: p.lines.line(at), Text: fmt.Sprintf(format, args...)})
}

// table passes each value to its field's setter and reports unknown keys.
func (p *parser) table(at string, t map[string]any, fields []field) {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	for key, v := range t {
		here := join(at, key)
		i := slices.Index(keys, key)
		if i < 0 {
			p.problem(here, "unknown key %q%s; allowed here: %s", key, didYouMean(key, keys), strings.Join(keys, ", "))
			continue
		}
		fields[i].set(here, v)
	}
}

func (p *parser) log(l *Log) setter {
	return func(at string, v any) {
		t, ok := v.(map[string]any)
		if !ok {
			p.problem(at, "log = %s: must be a table: [log]", show(v))
			return
		}
		p.table(at, t, []field{
			{"level", word(p, &l.Level, LogLevels())},
			{"file", p.absolutePath(&l.File)},
		})
	}
}

func (p *parser) rules(rules *[]Rule) setter {
	return func(at string, v any) {
		tables, ok := tablesOf(v)
		if !ok {
			p.problem(at, "container = %s: must be a list of tables: [[container]]", show(v))
			return
		}
		for i, t := range tables {
			here := fmt.Sprintf("%s[%d]", at, i)
			r := Rule{Line: p.lines.line(here)}
			p.table(here, t, []field{
				{"id", p.pattern(&r.ID)},
				{"name", p.pattern(&r.Name)},
				{"pod", p.podPattern(&r.Pod)},
				{"backend", word(p, &r.Backend, backend.All())},
				{"policy", word(p, &r.Policy, Policies())},
				{"ttl", p.optionalDuration(&r.TTL, MinTTL, MaxTTL)},
				{"drain", p.optionalDuration(&r.Drain, MinDrain, MaxDrain)},
				{"quiet", word(p, &r.Quiet, Quiets())},
				{"quiet-time", p.optionalDuration(&r.QuietTime, MinQuietTime, MaxQuietTime)},
				{"answer", word(p, &r.Answer, Answers())},
			})
			if t["id"] == nil && t["name"] == nil && t["pod"] == nil {
				p.problem(here, "container rule %d matches nothing: give it id, name or pod", i+1)
			}
			*rules = append(*rules, r)
		}
	}
}

// tablesOf accepts both ways to write a list of tables: [[container]] and
// container = [{…}].
func tablesOf(v any) ([]map[string]any, bool) {
	if tables, ok := v.([]map[string]any); ok {
		return tables, true
	}
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	tables := make([]map[string]any, len(list))
	for i := range list {
		if tables[i], ok = list[i].(map[string]any); !ok {
			return nil, false
		}
	}
	return tables, true
}

func word[T ~string](p *parser, dst *T, allowed []T) setter {
	return func(at string, v any) {
		s, ok := v.(string)
		if !ok {
			words := make([]string, len(allowed))
			for i, a := range allowed {
				words[i] = string(a)
			}
			p.problem(at, "%s = %s: must be a string, one of %s", key(at), show(v), quoteAll(words))
			return
		}
		w, err := parseWord(key(at), s, allowed)
		if err != nil {
			p.problem(at, "%s", err)
			return
		}
		*dst = w
	}
}

func (p *parser) boolean(dst *bool) setter {
	return func(at string, v any) {
		b, ok := v.(bool)
		if !ok {
			p.problem(at, "%s = %s: not one of true, false (without quotes)", key(at), show(v))
			return
		}
		*dst = b
	}
}

func (p *parser) number(dst *int, lowest, highest int) setter {
	return func(at string, v any) {
		n, ok := v.(int64)
		if !ok || n < int64(lowest) || n > int64(highest) {
			p.problem(at, "%s = %s: must be a whole number from %d to %d", key(at), show(v), lowest, highest)
			return
		}
		*dst = int(n)
	}
}

func (p *parser) duration(dst *time.Duration, lowest, highest time.Duration) setter {
	return func(at string, v any) {
		s, ok := v.(string)
		if !ok {
			p.problem(at, "%s = %s: must be a duration with its unit in quotes, such as %q", key(at), show(v), withUnit(show(v)))
			return
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			p.problem(at, "%s = %q: must be a number with a unit (ms, s, m, h), such as %q", key(at), s, withUnit(s))
			return
		}
		if d < lowest || d > highest {
			p.problem(at, "%s = %q: must be from %q to %q", key(at), s, FormatDuration(lowest), FormatDuration(highest))
			return
		}
		*dst = d
	}
}

func (p *parser) optionalDuration(dst **time.Duration, lowest, highest time.Duration) setter {
	return func(at string, v any) {
		d := lowest - 1 // stays if v is refused
		p.duration(&d, lowest, highest)(at, v)
		if d >= lowest {
			*dst = &d
		}
	}
}

func (p *parser) text(at string, v any, what string) (string, bool) {
	s, ok := v.(string)
	if !ok {
		p.problem(at, "%s = %s: must be %s in quotes", key(at), show(v), what)
	}
	return s, ok
}

func (p *parser) absolutePath(dst *string) setter {
	return func(at string, v any) {
		s, ok := p.text(at, v, "an absolute path")
		if !ok {
			return
		}
		if s != "" && (!filepath.IsAbs(s) || strings.ContainsRune(s, 0)) {
			p.problem(at, "%s = %q: must be an absolute path, or empty for CRIU's log", key(at), s)
			return
		}
		*dst = s
	}
}

func (p *parser) pattern(dst *string) setter {
	return func(at string, v any) {
		s, ok := p.text(at, v, "a glob")
		if !ok {
			return
		}
		if _, err := path.Match(s, ""); err != nil || s == "" {
			p.problem(at, "%s = %q: not a glob: * ? [a-z] and \\ are special, and it must not be empty", key(at), s)
			return
		}
		*dst = s
	}
}

func (p *parser) podPattern(dst *string) setter {
	return func(at string, v any) {
		before := len(p.problems)
		var s string
		p.pattern(&s)(at, v)
		if len(p.problems) > before {
			return
		}
		if strings.Count(s, "/") != 1 {
			p.problem(at, "%s = %q: must be namespace/name, such as %q", key(at), s, "default/web-*")
			return
		}
		*dst = s
	}
}
