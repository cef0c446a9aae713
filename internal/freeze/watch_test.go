// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules/fake"
)

// TestWatch has a hold end by itself: by a SIGTERM, after its time, and not where
// neither is wanted or where somebody has undone it.
func TestWatch(t *testing.T) {
	for what, tc := range map[string]struct {
		watch Watch
		do    func(k *Keeper, f *Freeze) error
		ends  bool
		says  string
	}{
		"SIGTERM": {
			Watch{Sigterm: true},
			func(_ *Keeper, f *Freeze) error { return unix.Kill(f.Record.Tree[0].PID, unix.SIGTERM) },
			true, "SIGTERM",
		},
		"its time": {Watch{ThenKill: 300 * time.Millisecond}, nil, true, "hold-then-kill"},
		"thaw": {
			Watch{Sigterm: true, ThenKill: time.Minute},
			func(k *Keeper, f *Freeze) error { return k.Thaw(0, f.Record) },
			false, "",
		},
	} {
		t.Run(what, func(t *testing.T) {
			fresh(t)
			k, ns := New(fake.New()), nstest.New(t)
			p := task(t, ns, true)
			f := hold(t, k, ns, p)
			var said bytes.Buffer
			log := logrus.New()
			log.SetOutput(&said)
			done := make(chan struct{})
			go func() {
				defer close(done)
				k.Watch(f.Record.ID, tc.watch, log)
			}()
			time.Sleep(2 * watchInterval) // what is pending by then counts for nothing
			if tc.do != nil {
				must(t, tc.do(k, f))
			}
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Fatal("it is watched for ever")
			}
			if p.Alive() == tc.ends {
				t.Errorf("the task is alive: %v", p.Alive())
			}
			if !strings.Contains(said.String(), tc.says) {
				t.Errorf("log: %s", said.String())
			}
			if r, err := record.Load(f.Record.ID); tc.ends && (err != nil || r.Phase != record.Ended) {
				t.Errorf("record: %+v, %v", r, err)
			}
		})
	}
}

// TestWatchPendingBefore leaves a task alone that blocks a SIGTERM it got before.
func TestWatchPendingBefore(t *testing.T) {
	fresh(t)
	k, ns := New(fake.New()), nstest.New(t)
	p := task(t, ns, false)
	f := hold(t, k, ns, p)
	must(t, unix.Kill(p.PID, unix.SIGTERM))
	if !p.Pending(unix.SIGTERM) || p.Pending(unix.SIGUSR1) {
		t.Errorf("pending: SIGTERM %v, SIGUSR1 %v", p.Pending(unix.SIGTERM), p.Pending(unix.SIGUSR1))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Watch(f.Record.ID, Watch{Sigterm: true}, logrus.New())
	}()
	time.Sleep(4 * watchInterval)
	if !p.Alive() {
		t.Error("it was ended")
	}
	must(t, f.Record.Remove())
	<-done
}
