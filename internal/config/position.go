// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"fmt"
	"strings"
)

// positions maps places in the document, such as container[1].policy, to their
// lines. The TOML library checks the syntax, but does not tell where a key stands.
type positions map[string]int

// line returns the line of a place or, if that is unknown, of what encloses it.
func (ps positions) line(at string) int {
	for at != "" {
		if n, ok := ps[at]; ok {
			return n
		}
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
	return 1
}

// locate finds the keys of a document that is known to be valid TOML. The keys of an
// inline table or a list are not found: their line is the one where that begins.
func locate(data []byte) positions {
	ps := positions{}
	tables := map[string]int{} // how many of each [[table]] there have been
	prefix := ""
	s := scanner{data: data, line: 1}
	for s.toStatement() {
		line := s.line
		switch {
		case s.take("[["):
			name := join("", s.key("]]"))
			prefix = fmt.Sprintf("%s[%d]", name, tables[name])
			tables[name]++
			ps.add(prefix, line)
			ps.add(name, line)
		case s.take("["):
			prefix = s.key("]")
			ps.add(prefix, line)
		default:
			ps.add(join(prefix, s.key("=")), line)
			s.skipValue()
		}
	}
	return ps
}

// add stores the line of a place that is seen for the first time, and of the tables
// that a dotted key defines.
func (ps positions) add(at string, line int) {
	for at != "" {
		if _, ok := ps[at]; !ok {
			ps[at] = line
		}
		at = at[:max(strings.LastIndexByte(at, '.'), 0)]
	}
}

// scanner reads a document and counts its lines.
type scanner struct {
	data []byte
	line int
}

func (s *scanner) advance(n int) {
	n = min(n, len(s.data))
	s.line += bytes.Count(s.data[:n], []byte("\n"))
	s.data = s.data[n:]
}

func (s *scanner) take(prefix string) bool {
	if !bytes.HasPrefix(s.data, []byte(prefix)) {
		return false
	}
	s.advance(len(prefix))
	return true
}

// toStatement skips blanks and comments and reports whether a statement follows.
func (s *scanner) toStatement() bool {
	for len(s.data) > 0 {
		switch s.data[0] {
		case ' ', '\t', '\r', '\n':
			s.advance(1)
		case '#':
			s.skipLine()
		default:
			return true
		}
	}
	return false
}

func (s *scanner) skipLine() {
	if i := bytes.IndexByte(s.data, '\n'); i >= 0 {
		s.advance(i)
		return
	}
	s.advance(len(s.data))
}

// key reads a key, which may be dotted and quoted, and the sign that ends it.
func (s *scanner) key(end string) string {
	var b strings.Builder
	for len(s.data) > 0 && !s.take(end) {
		switch c := s.data[0]; c {
		case ' ', '\t', '\r', '\n':
			s.advance(1)
		case '"', '\'':
			n := stringLen(s.data)
			b.Write(bytes.Trim(s.data[:n], string(c)))
			s.advance(n)
		default:
			b.WriteByte(c)
			s.advance(1)
		}
	}
	return b.String()
}

// skipValue moves to the end of the line on which the value ends.
func (s *scanner) skipValue() {
	depth := 0
	for len(s.data) > 0 {
		switch s.data[0] {
		case '"', '\'':
			s.advance(stringLen(s.data))
		case '#':
			s.skipLine()
		case '\n':
			if depth <= 0 {
				return
			}
			s.advance(1)
		case '[', '{':
			depth++
			s.advance(1)
		case ']', '}':
			depth--
			s.advance(1)
		default:
			s.advance(1)
		}
	}
}

// stringLen returns the length of the string at the start of data, quotes included.
// It may be basic or literal, and multi-line.
func stringLen(data []byte) int {
	quote := data[:1]
	if triple := bytes.Repeat(quote, 3); bytes.HasPrefix(data, triple) {
		quote = triple
	}
	for i := len(quote); i < len(data); i++ {
		switch {
		case data[i] == '\\' && quote[0] == '"':
			i++
		case bytes.HasPrefix(data[i:], quote):
			i += len(quote)
			// A multi-line string may end in up to two quotes of its own.
			for len(quote) == 3 && i < len(data) && data[i] == quote[0] {
				i++
			}
			return i
		}
	}
	return len(data)
}
