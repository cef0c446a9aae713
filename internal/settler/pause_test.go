// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/hooks"
	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// hangs is the value of roleEnv for a settler that hangs in an action.
const hangs = "hangs"

// hanging is a transaction whose actions never end.
type hanging struct{ hooks.Transaction }

func (hanging) Do(action.Request) error { select {} }

func hang() {
	hangTime = 100 * time.Millisecond
	s := &settler{env: &hooks.Env{Log: logrus.New()}, tx: hanging{}}
	_, _ = s.act(action.Request{Script: action.Hook, Action: action.PostDump}.String())
	os.Exit(0)
}

// TestHangs has a settler end that hangs in an action, with the locks that it has.
func TestHangs(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+hangs)
	late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	said, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(said), "post-dump: the settler hangs") {
		t.Errorf("%v: %s", err, said)
	}
}

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
