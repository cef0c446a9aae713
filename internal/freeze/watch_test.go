// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
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
			if tc.ends {
				for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
					if r, err := record.Load(f.Record.ID); err == nil && r.Phase == record.Ended {
						break
					}
					if time.Now().After(deadline) {
						t.Fatal("it is held for ever")
					}
				}
				must(t, f.Record.Remove()) // as a restore does
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

// TestWatchNewcomers has a container start in a namespace that is frozen for a restore
// of another one. A command that enters the namespace is none.
func TestWatchNewcomers(t *testing.T) {
	for _, thaw := range []bool{true, false} {
		t.Run(fmt.Sprint(thaw), func(t *testing.T) {
			fresh(t)
			filter := fake.New()
			k, ns := New(filter), nstest.New(t)
			start := func(flags uintptr) proc.Ref {
				cmd := exec.Command("sleep", "3600")
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
				must(t, ns.Do(cmd.Start))
				t.Cleanup(func() {
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
				})
				return proc.Ref{PID: cmd.Process.Pid}
			}
			start(unix.CLONE_NEWPID) // the pod's pause process
			f := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Dump, Phase: record.Ended})
			must(t, f.Arm())
			var said bytes.Buffer
			log := logrus.New()
			log.SetOutput(&said)
			done := make(chan struct{})
			go func() {
				defer close(done)
				k.Watch(f.Record.ID, Watch{Newcomers: thaw}, log)
			}()
			time.Sleep(newcomerInterval / 2)
			start(0)
			time.Sleep(5 * newcomerInterval / 2)
			if filter.String() == "" {
				t.Fatalf("thawed for a command: %s", said.String())
			}
			p := start(unix.CLONE_NEWPID)
			if thaw {
				<-done
				if filter.String() != "" {
					t.Errorf("in force: %s", filter)
				}
			} else {
				time.Sleep(5 * newcomerInterval / 2)
				r, err := record.Load("1@1")
				must(t, err)
				if !strings.Contains(r.Note, fmt.Sprintf("pid %d has started", p.PID)) || filter.String() == "" {
					t.Errorf("note %q, in force %s", r.Note, filter)
				}
				must(t, r.Remove())
				<-done
			}
			if !strings.Contains(said.String(), fmt.Sprintf("pid %d has started", p.PID)) {
				t.Errorf("log: %s", said.String())
			}
		})
	}
}
