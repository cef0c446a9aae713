// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// TestPause lets a command have the record of a settlement that does not work out, and
// hears of it.
func TestPause(t *testing.T) {
	if err := record.MakeDir(); err != nil {
		t.Fatal(err)
	}
	for what, tc := range map[string]struct {
		command func(*record.Record) error // nil for none
		ours    bool
	}{
		"nobody":   {nil, true},
		"thaw":     {(*record.Record).Remove, false},
		"kill":     {func(r *record.Record) error { r.Phase = record.Ended; return r.Save() }, false},
		"a look":   {func(*record.Record) error { return nil }, true},
		"the note": {func(r *record.Record) error { r.Note = "x"; return r.Save() }, true},
	} {
		t.Run(what, func(t *testing.T) {
			r := &record.Record{ID: "1@1", Phase: record.Held}
			if err := r.Save(); err != nil {
				t.Fatal(err)
			}
			lock, err := record.Acquire(r.ID)
			if err != nil {
				t.Fatal(err)
			}
			s := &settler{id: r.ID, lock: lock}
			done := make(chan error, 1)
			go func() {
				if tc.command == nil {
					done <- nil
					return
				}
				var l *record.Lock
				var err error
				for deadline := time.Now().Add(10 * time.Second); l == nil && time.Now().Before(deadline); {
					l, err = record.Acquire(r.ID)
				}
				if err == nil {
					err = tc.command(r)
					l.Release()
				}
				done <- err
			}()
			if ours := s.pause(300 * time.Millisecond); ours != tc.ours {
				t.Errorf("it is ours still: %v", ours)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if s.lock == nil || !record.Busy(r.ID) {
				t.Error("the record is not locked any more")
			}
			s.lock.Release()
		})
	}
}
