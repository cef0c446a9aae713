// SPDX-License-Identifier: Apache-2.0

package printable

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"plain, ünïcode, 世界":    "plain, ünïcode, 世界",
		"a\nb\x1b[2J":           `a\x0ab\x1b[2J`,
		"\u202edlrow \u2028":    `\u202edlrow \u2028`,
		"no UTF-8: \xff":        `no UTF-8: \xff`,
		"C1: \u009b31m, \u200b": `C1: \u009b31m, \u200b`,
	} {
		if got := Text(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzText promises one line of printable UTF-8, whatever comes in.
func FuzzText(f *testing.F) {
	f.Add("a\x1b[2J\u202e\xff")
	f.Fuzz(func(t *testing.T, in string) {
		out := Text(in)
		if !utf8.ValidString(out) || strings.ContainsFunc(out, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q became %q", in, out)
		}
		if Text(out) != out {
			t.Errorf("%q is not left alone", out)
		}
	})
}
