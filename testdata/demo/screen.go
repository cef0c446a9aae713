// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// style is how a line looks on a terminal; on anything else all lines are plain.
type style string

const (
	plain style = ""
	bold  style = "\033[1m"
	faint style = "\033[2m"
	alarm style = "\033[31m"
	good  style = "\033[32m"
)

// screen shows the story: a line per event, with the seconds since the start.
type screen struct {
	mu           sync.Mutex
	out          *os.File
	terminal     bool
	start, shown time.Time
}

func newScreen(out *os.File) *screen {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	return &screen{out: out, terminal: err == nil && os.Getenv("TERM") != "dumb", start: time.Now()}
}

// print writes text in place of what status has left on the line.
func (s *screen) print(look style, text, end string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = time.Now()
	if s.terminal {
		text = "\r\033[K" + string(look) + text + "\033[0m"
	}
	fmt.Fprint(s.out, text+end)
}

func (s *screen) title(text string) { s.print(bold, "\n"+text, "\n") }

// line shows one event.
func (s *screen) line(look style, format string, args ...any) {
	s.print(look, s.timed(fmt.Sprintf(format, args...)), "\n")
}

// status shows the current state during a wait: on a terminal in place, on
// anything else as a line, if there has been none for half a second.
func (s *screen) status(text string) {
	s.mu.Lock()
	due := time.Since(s.shown) > 500*time.Millisecond
	s.mu.Unlock()
	if s.terminal {
		s.print(faint, s.timed(text), "")
	} else if due {
		s.line(faint, "%s", text)
	}
}

func (s *screen) timed(text string) string {
	return fmt.Sprintf("%7.3f  %s", time.Since(s.start).Seconds(), text)
}
