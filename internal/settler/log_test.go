// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// logged returns the lines that reach CRIU's log.
func logged(write func(*logrus.Logger)) []string {
	var lines []string
	log := logrus.New()
	log.SetFormatter(lineFormat{})
	log.SetOutput(&logLines{send: func(l string) { lines = append(lines, l) }})
	write(log)
	return lines
}

func TestLogLines(t *testing.T) {
	lines := logged(func(log *logrus.Logger) {
		log.WithField("backend", "nftables").Info("frozen")
		log.Error(errors.Join(errors.New("first"), errors.New("second")))
		log.Info(strings.Repeat("x", 2*action.MaxMessage))
		log.Info("x" + strings.Repeat("ä", action.MaxMessage))
	})
	if len(lines) != 4 {
		t.Fatalf("%d lines", len(lines))
	}
	if want := []string{"netfreeze: info: frozen (backend=nftables)\n", "netfreeze: error: first; second\n"}; !slices.Equal(lines[:2], want) {
		t.Errorf("got %q, want %q", lines[:2], want)
	}
	for _, line := range lines[2:] {
		// An answer is one byte longer.
		if n := len(line); n >= action.MaxMessage || n < action.MaxMessage-4 || !strings.HasSuffix(line, "…\n") || !utf8.ValidString(line) {
			t.Errorf("the long line has %d bytes and ends in %q", n, line[n-8:])
		}
	}
}

// TestLogControlCharacters promises that a container's name cannot move the cursor of
// whoever reads the log, nor begin a line that looks like somebody else's.
func TestLogControlCharacters(t *testing.T) {
	for in, want := range map[string]string{
		"Grüße 世界 \\ 'x' 😀":                 "Grüße 世界 \\ 'x' 😀",
		"a\x1b[2J\x07\x00\x7f":              `a\x1b[2J\x07\x00\x7f`,
		"tab\there":                         `tab\x09here`,
		"C1 \u0085 \u009b31m":               `C1 \u0085 \u009b31m`,
		"bytes \x9b31m \xff":                `bytes \x9b31m \xff`,
		"lines \u2028 \u2029":               `lines \u2028 \u2029`,
		"bidi \u061c\u200e\u202e\u2066":     `bidi \u061c\u200e\u202e\u2066`,
		"invisible \u200b\ufeff\U000e0041":  `invisible \u200b\ufeff\U000e0041`,
		"replaced \ufffd, no-break \u00a0.": "replaced \ufffd, no-break \\u00a0.",
	} {
		lines := logged(func(log *logrus.Logger) { log.WithField("container", in).Warn(in) })
		if line := "netfreeze: warning: " + want + " (container=" + want + ")\n"; len(lines) != 1 || lines[0] != line {
			t.Errorf("got %q, want %q", lines, line)
		}
	}
	in := "name\n(00.1) Error (criu/x.c:1): forged\r\nand more"
	lines := logged(func(log *logrus.Logger) { log.WithField("container", in).Warn(in) })
	want := `netfreeze: warning: name; (00.1) Error (criu/x.c:1): forged; and more ` +
		`(container=name\x0a(00.1) Error (criu/x.c:1): forged\x0d\x0aand more)` + "\n"
	if len(lines) != 1 || lines[0] != want {
		t.Errorf("got %q, want %q", lines, want)
	}
}

// FuzzLogLine promises that a message is one line without control characters, which is
// valid UTF-8 and fits into an answer.
func FuzzLogLine(f *testing.F) {
	f.Add("frozen", "nftables")
	f.Add("\x1b[2J\u202e\x9b\u2028", "a\r\nb")
	f.Add("\n", strings.Repeat("ä\x1b", action.MaxMessage/3))
	f.Fuzz(func(t *testing.T, message, value string) {
		lines := logged(func(log *logrus.Logger) { log.WithField("key", value).Info(message) })
		if len(lines) != 1 {
			t.Fatalf("%d lines: %q", len(lines), lines)
		}
		line, ok := strings.CutSuffix(lines[0], "\n")
		if !ok || len(lines[0]) >= action.MaxMessage || !utf8.ValidString(line) || !strings.HasPrefix(line, "netfreeze: info: ") {
			t.Errorf("%d bytes: %q", len(lines[0]), lines[0])
		}
		for _, r := range line {
			if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
				t.Errorf("%q has %U", line, r)
			}
		}
	})
}
