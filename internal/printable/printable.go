// SPDX-License-Identifier: Apache-2.0

// Package printable makes text from outside harmless where people read it: names and
// annotations of containers are chosen by whoever may start one.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Text returns s with everything escaped, as in Go's string literals, that does
// not stand for itself on a terminal or in an editor: control characters (they move the
// cursor, or begin a line that looks like one of CRIU's), line separators, characters
// that change the direction of the text or are invisible, and bytes that are no UTF-8.
func Text(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1, r < utf8.RuneSelf && !strconv.IsPrint(r):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !strconv.IsPrint(r):
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			b.WriteRune(r)
		}
		i += size
	}
	return b.String()
}
