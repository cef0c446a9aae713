// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// slow is a writer that tells when something was written.
type slow struct {
	mu   sync.Mutex
	text strings.Builder
	said chan struct{}
}

func (s *slow) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.said <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func TestWaiting(t *testing.T) {
	for _, tc := range []struct {
		name     string
		terminal bool
		want     []string
	}{
		{"a terminal", true, []string{"\rwaiting for the tasks to end, 0 s\x1b[K", "\r\x1b[K"}},
		{"a file", false, []string{"netfreeze: waiting for the tasks to end, 2 s\n"}},
	} {
		w := &slow{said: make(chan struct{}, 1)}
		done := waitOn(w, tc.terminal, "the tasks to end")
		select {
		case <-w.said:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: nothing was said", tc.name)
		}
		done()
		for _, want := range tc.want {
			if !strings.Contains(w.text.String(), want) {
				t.Errorf("%s: said %q, want %q in it", tc.name, w.text.String(), want)
			}
		}
		w = &slow{said: make(chan struct{}, 1)}
		waitOn(w, tc.terminal, "nothing")()
		if w.text.Len() > 0 {
			t.Errorf("%s: a short wait says %q", tc.name, w.text.String())
		}
	}
}
