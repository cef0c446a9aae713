// SPDX-License-Identifier: Apache-2.0

package standstill

import (
	"testing"
	"time"
)

// TestSince adds up what has been seen, and what may go on.
func TestSince(t *testing.T) {
	now := time.Now()
	at := func(seconds float64) time.Time { return now.Add(time.Duration(seconds * float64(time.Second))) }
	over = []interval{{at(-10), at(-8)}, {at(-5), at(-4)}}
	last = []time.Time{at(-0.05)}
	defer func() { over, last = nil, nil }()
	for _, test := range []struct {
		from time.Time
		want time.Duration
	}{
		{at(-20), 3 * time.Second}, {at(-9), 2 * time.Second}, {at(-6), time.Second}, {at(-4.5), 500 * time.Millisecond}, {at(-3), 0},
	} {
		if got := Since(test.from).Round(10 * time.Millisecond); got != test.want {
			t.Errorf("since %v: %v, not %v", test.from.Sub(now), got, test.want)
		}
	}
	last = []time.Time{at(-2)}
	if got := Since(at(-3)).Round(100 * time.Millisecond); got != 2*time.Second {
		t.Errorf("one goes on: %v", got)
	}
}
