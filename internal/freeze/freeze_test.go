// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
	"github.com/criu-netfreeze/criu-netfreeze/rules/fake"
)

// fresh gives a test an empty state directory.
func fresh(t *testing.T) {
	t.Helper()
	must(t, os.RemoveAll(record.Dir))
	must(t, record.MakeDir())
	t.Cleanup(func() { _ = os.RemoveAll(record.Dir) })
}

// self is this process, in the place of CRIU.
func self(t *testing.T) proc.Ref {
	t.Helper()
	st, err := proc.ReadStat(os.Getpid())
	must(t, err)
	return proc.Ref{PID: os.Getpid(), Start: st.Start}
}

// newFreeze returns a freeze of ns by k, open, with its record saved.
func newFreeze(t *testing.T, k *Keeper, ns *netns.Namespace, r record.Record) *Freeze {
	t.Helper()
	r.CRIU = self(t)
	r.ExpireIn(time.Minute)
	if r.Phase == "" {
		r.Phase = record.Running
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	f := k.Freeze(&r, backend.Auto, time.Minute, log)
	own, err := ns.Clone()
	must(t, err)
	must(t, f.Open(own))
	must(t, f.Save())
	t.Cleanup(f.Close)
	return f
}

// inhabit starts a process in the namespace, by which commands find it.
func inhabit(t *testing.T, ns *netns.Namespace) proc.Ref {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	must(t, ns.Do(cmd.Start))
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	st, err := proc.ReadStat(cmd.Process.Pid)
	must(t, err)
	return proc.Ref{PID: cmd.Process.Pid, Start: st.Start}
}

// TestManual keeps one record however often it is done, and never shortens a freeze.
func TestManual(t *testing.T) {
	fresh(t)
	k, ns := New(rules.Kernel{}), nstest.New(t)
	for _, ttl := range []time.Duration{time.Hour, time.Minute} {
		r, err := k.Manual(ns, record.Record{ID: "test", Container: identity.Container{Pod: "shop/db-0"}}, Options{Backend: backend.NFTables, TTL: ttl})
		must(t, err)
		if r.Container.Pod != "shop/db-0" || r.Left() < 50*time.Minute {
			t.Errorf("record: %+v", r)
		}
		st, err := rules.Look(ns)
		must(t, err)
		if !st.Frozen || st.Left < 50*time.Minute {
			t.Errorf("state: %+v", st)
		}
	}
	of, err := record.Of(ns)
	must(t, err)
	if len(of) != 1 {
		t.Errorf("%d records", len(of))
	}
	other := nstest.New(t)
	if _, err := k.Manual(other, record.Record{ID: "bad"}, Options{Backend: "none", TTL: time.Minute}); err == nil {
		t.Error("a back end that does not exist was accepted")
	}
	if of, err := record.Of(other); len(of) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", of, err)
	}
	host, err := netns.OpenHost()
	must(t, err)
	defer host.Close()
	var refused *netns.RefusedError
	if _, err := k.Manual(host, record.Record{ID: "host"}, Options{Backend: backend.NFTables, TTL: time.Minute}); !errors.As(err, &refused) {
		t.Errorf("the host's namespace: %v", err)
	}
}

// TestManualRenewalFails leaves a freeze and its record as they were if it cannot be
// renewed, and nothing at all if there was none.
func TestManualRenewalFails(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	first, err := k.Manual(ns, record.Record{ID: "test", Note: "first"}, Options{Backend: backend.NFTables, TTL: time.Hour})
	must(t, err)
	filter.Fail("Freeze", errors.New("no"))
	if _, err := k.Manual(ns, record.Record{ID: "test", Note: "second"}, Options{Backend: backend.NFTables, TTL: 2 * time.Hour}); err == nil {
		t.Error("no error")
	}
	now, err := record.Load("test")
	must(t, err)
	if now.Note != "first" || !now.Until.Equal(first.Until) {
		t.Errorf("the record is %+v", now)
	}
	if got := strings.TrimSpace(filter.String()); got != "whole nftables frozen 1h0m0s" {
		t.Errorf("in force: %s", got)
	}
	if _, err := k.Manual(nstest.New(t), record.Record{ID: "other"}, Options{Backend: backend.NFTables, TTL: time.Hour}); err == nil {
		t.Error("no error")
	}
	if _, err := record.Load("other"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a record of what never was frozen: %v", err)
	}
}

// TestLocked waits for the one before, who has the namespace's lock.
func TestLocked(t *testing.T) {
	fresh(t)
	ns, other := nstest.New(t), nstest.New(t)
	taken := make(chan error)
	must(t, locked(ns, func() error {
		go func() { taken <- locked(ns, func() error { return nil }) }()
		select {
		case err := <-taken:
			t.Errorf("two have the lock: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		return locked(other, func() error { return nil }) // another namespace's is free
	}))
	must(t, <-taken)
	entries, err := os.ReadDir(record.Dir)
	must(t, err)
	if len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
	refusal := errors.New("refused")
	if err := locked(ns, func() error { return refusal }); !errors.Is(err, refusal) {
		t.Errorf("got %v", err)
	}
}

// TestTogether has two freezes of one namespace, as of two containers in a pod, end in
// every order: the first one leaves the rules to the other, the second one takes them
// away, and no record is left.
func TestTogether(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	a := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Dump, Owner: "a"})
	b := newFreeze(t, k, ns, record.Record{ID: "2@2", Op: record.Dump, Owner: "b"})
	for _, f := range []*Freeze{a, b} {
		l, err := record.Acquire(f.Record.ID) // as their settlers
		must(t, err)
		defer record.Release(f.Record.ID, l)
		must(t, f.Arm())
	}
	must(t, a.Thaw())
	must(t, b.Thaw())
	if a.Lifted() || b.Lifted() || filter.String() == "" {
		t.Errorf("thawed while both are under way: %s", filter)
	}
	done := make(chan error)
	for _, f := range []*Freeze{a, b} {
		go func() { done <- f.Forget() }()
	}
	must(t, errors.Join(<-done, <-done))
	if got := filter.String(); got != "" {
		t.Errorf("both have gone, and frozen is: %s", got)
	}
	if all, err := record.All(); len(all) > 0 || err != nil {
		t.Errorf("records left: %v, %v", all, err)
	}
}

// TestNarrowKept has a sibling narrow the freeze of a dump that is over while its
// settler still adds to the record: what it saves then does not undo that.
func TestNarrowKept(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	inhabit(t, ns)
	ended := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Dump, Phase: record.Ended, Owner: "a", Conns: conns(1, 2)})
	must(t, ended.Arm())
	must(t, ended.Save())
	sibling := newFreeze(t, k, ns, record.Record{ID: "2@2", Op: record.Dump, Owner: "b", Conns: conns(3)})
	must(t, sibling.Forget())
	if got := filter.String(); !strings.HasPrefix(got, "conns nftables a 2 frozen") || strings.Contains(got, "whole") {
		t.Errorf("in force: %s", got)
	}
	ended.Record.Note = "more"
	must(t, ended.Save())
	now, err := record.Load("1@1")
	must(t, err)
	if now.Scope != record.Connections || now.Note != "more" {
		t.Errorf("the record is %+v", now)
	}
	must(t, k.Thaw(0, now))
	if got := filter.String(); got != "" {
		t.Errorf("left: %s", got)
	}
}

// TestFreezeStages goes through a freeze's life, with repetitions and failures.
func TestFreezeStages(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps string
		want  string // in force, and what Armed and Lifted say
		fails string
	}{
		{"prepared", "prepare", "whole nftables prepared syn-held; armed false, lifted false", ""},
		{"armed", "prepare arm arm", "whole nftables frozen 1m0s; armed true, lifted false", ""},
		{"armed unprepared", "arm", "whole nftables frozen 1m0s; armed true, lifted false", ""},
		{"lifted", "prepare arm lift lift", "whole nftables prepared; armed false, lifted true", ""},
		{"thawed", "prepare arm lift thaw thaw", "; armed false, lifted true", ""},
		{"armed again", "arm lift arm", "whole nftables frozen 1m0s; armed true, lifted false", ""},
		{"thawed unarmed", "prepare thaw", "; armed false, lifted true", ""},
		{"cannot lift", "arm !Lift lift", "; armed false, lifted true", ""},
		{"cannot lift nor thaw", "arm !Lift !ThawAll lift", "whole nftables frozen 1m0s; armed true, lifted false", "ThawAll does not work"},
		{"cannot arm", "prepare !Freeze arm", "whole nftables prepared syn-held; armed false, lifted false", "Freeze does not work"},
		{"forgotten", "arm forget", "; armed false, lifted true", ""},
		{"left", "arm leave", "; armed false, lifted false", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fresh(t)
			filter := fake.New()
			f := newFreeze(t, New(filter), nstest.New(t), record.Record{ID: "1@1", Op: record.Dump, Owner: "a"})
			var err error
			for step := range strings.FieldsSeq(tc.steps) {
				if method, ok := strings.CutPrefix(step, "!"); ok {
					filter.Fail(method, fmt.Errorf("%s does not work", method))
					continue
				}
				err = map[string]func() error{
					"prepare": func() error { return f.Prepare(time.Second) },
					"arm":     f.Arm, "lift": f.Lift, "thaw": f.Thaw, "forget": f.Forget, "leave": f.Leave,
				}[step]()
			}
			got := fmt.Sprintf("%s; armed %v, lifted %v", strings.TrimSpace(filter.String()), f.Armed(), f.Lifted())
			if got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if (err == nil) != (tc.fails == "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("error %v, want %q", err, tc.fails)
			}
		})
	}
}

// TestInForce tells a freeze that waits for its restore from one that somebody has
// removed.
func TestInForce(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	ask := func(what string, want bool) {
		t.Helper()
		if ok, err := k.InForce(ns, "test"); ok != want || err != nil {
			t.Errorf("%s: %v, %v", what, ok, err)
		}
	}
	ask("no record", true)
	r, err := k.Manual(ns, record.Record{ID: "test"}, Options{Backend: backend.NFTables, TTL: time.Hour})
	must(t, err)
	ask("frozen", true)
	isolated, err := ns.Isolate()
	must(t, err)
	must(t, filter.ThawAll(isolated))
	ask("thawed behind our back", false)
	must(t, (&record.Record{ID: "2@2", Op: record.Restore, NetNS: ns.ID(), Until: time.Now().Add(time.Hour)}).Save())
	ask("a restore is at work", true)
	must(t, (&record.Record{ID: "2@2"}).Remove())
	must(t, r.Remove())
	if was, err := k.ThawUnrecorded(ns); was.Thawed || err != nil {
		t.Errorf("thawed what was not frozen: %v, %v", was, err)
	}
}
