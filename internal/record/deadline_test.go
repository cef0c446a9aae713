// SPDX-License-Identifier: Apache-2.0

package record

import (
	"testing"
	"time"
)

// TestWallClock sets the wall clock, as far as a record can tell: its time to live ends
// when it would have.
func TestWallClock(t *testing.T) {
	for _, step := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		var r Record
		r.ExpireIn(time.Minute)
		r.Until = r.Until.Add(step)
		if left := r.Left(); r.Expired() || left > time.Minute || left < 50*time.Second {
			t.Errorf("the clock was set by %v: %v left", -step, left)
		}
		if off := time.Until(r.Ends()) - r.Left(); off.Abs() > time.Second {
			t.Errorf("the time that is shown is wrong by %v", off)
		}
		r.ExpireIn(-time.Second)
		r.Until = r.Until.Add(step)
		if !r.Expired() {
			t.Errorf("the clock was set by %v: %v left of a time that is over", -step, r.Left())
		}
	}
	// Of another boot, or of none, the wall clock is all there is.
	for _, id := range []string{"", "another"} {
		r := Record{Until: time.Now().Add(time.Hour), Boot: Boot{ID: id, Until: 1}}
		if left := r.Left(); left < 59*time.Minute {
			t.Errorf("boot %q: %v left", id, left)
		}
	}
}
