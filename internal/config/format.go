// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
	"time"
)

// FormatDuration prints a duration as one would write it in the configuration:
// "15m", not "15m0s".
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// withUnit suggests what a duration without a unit was probably meant to be.
func withUnit(s string) string {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return "1s"
		}
	}
	if s == "" || len(s) > 6 {
		return "1s"
	}
	return s + "s"
}

// show prints a value of the wrong type for a message, composite ones shortened.
func show(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case map[string]any:
		return "{…}"
	case []any, []map[string]any:
		return "[…]"
	default:
		return fmt.Sprint(v)
	}
}

// join and key build and take apart the name of a place in the document, such as
// container[1].policy.
func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

func key(at string) string { return at[strings.LastIndexByte(at, '.')+1:] }

// didYouMean suggests the word most like s, if any is similar enough.
func didYouMean(s string, words []string) string {
	best, nearest := "", 3
	for _, w := range words {
		if d := distance(s, w); d < nearest && d < len(w) {
			best, nearest = w, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// distance returns the Levenshtein distance between a and b in bytes. For words
// whose lengths differ a lot it returns some large number.
func distance(a, b string) int {
	if len(a) > len(b)+2 || len(b) > len(a)+2 {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
