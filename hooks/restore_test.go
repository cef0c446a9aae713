// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// newTarget returns a stage for a restore into a namespace of its own, which CRIU is
// told by --join-ns, and which has the address of the images.
func newTarget(t *testing.T) *stage {
	t.Helper()
	// The namespace's first process is there before CRIU.
	ns := nstest.New(t)
	nstest.Run(t, ns, "ip", "addr", "add", "10.9.0.1/32", "dev", "lo")
	tree := child(t, "wait")
	must(t, ns.Do(tree.Start))
	s := newStage(t, false, "restore", "--join-ns", fmt.Sprintf("net:%d", tree.Process.Pid))
	s.ns, s.tree = ns, tree
	s.cfg.Resume = config.None
	return s
}

// inTarget is how the target is named in messages.
const inTarget = "NS (TREE/ns/net)"

// TestRestore tells the story of a restore that succeeds.
func TestRestore(t *testing.T) {
	want(t, newTarget(t).story("pre-restore", "post-setup-namespaces", "network-unlock", "post-resume"), `
		pre-restore: frozen, record running, whole nftables frozen 15m0s
		post-setup-namespaces: frozen, record running, whole nftables frozen 15m0s
		network-unlock: unlocked, record running, whole nftables prepared
		post-resume: finished`)
}

// TestRestoreRepeats has every action come twice.
func TestRestoreRepeats(t *testing.T) {
	want(t, newTarget(t).story("pre-restore", "pre-restore", "post-setup-namespaces", "post-setup-namespaces",
		"network-unlock", "network-unlock", "post-resume", "post-resume"), `
		pre-restore: frozen, record running, whole nftables frozen 15m0s
		pre-restore: frozen, record running, whole nftables frozen 15m0s
		post-setup-namespaces: frozen, record running, whole nftables frozen 15m0s
		post-setup-namespaces: frozen, record running, whole nftables frozen 15m0s
		network-unlock: unlocked, record running, whole nftables prepared
		network-unlock: unlocked, record running, whole nftables prepared
		post-resume: finished
		post-resume: finished`)
}

// TestRestoreWaits is a namespace that CRIU makes: nobody can freeze it before.
func TestRestoreWaits(t *testing.T) {
	s := newStage(t, false, "restore")
	s.useImages("dumped")
	s.cfg.Resume = config.None
	want(t, s.story("pre-restore", "post-setup-namespaces", "network-unlock", "post-resume"), `
		pre-restore: waiting for its namespace, record running
		post-setup-namespaces: frozen, record running, whole nftables frozen 15m0s
		network-unlock: unlocked, record running, whole nftables prepared
		post-resume: finished`)
}

// TestRestoreShared goes into CRIU's own namespace, where only its connections are
// frozen, and which gets no network-unlock.
func TestRestoreShared(t *testing.T) {
	s := newStage(t, true, "restore")
	s.useImages("shared")
	s.cfg.Resume = config.None
	want(t, s.story("pre-restore", "network-unlock", "post-resume"), `
		pre-restore: frozen, record running, conns nftables OWNER 1 frozen 15m0s
		network-unlock: unlocked, record running, conns nftables OWNER 1 frozen 15m0s
		post-resume: finished`)
}

// TestRestoreElsewhere finds the tasks in another namespace than it looked at first.
func TestRestoreElsewhere(t *testing.T) {
	s := newTarget(t)
	s.story("pre-restore")
	first := s.ns.ID().String()
	other := nstest.New(t)
	nstest.Run(t, other, "ip", "addr", "add", "10.9.0.1/32", "dev", "lo")
	s.tree = child(t, "wait")
	must(t, other.Do(s.tree.Start))
	s.ns = other
	want(t, s.story("post-setup-namespaces"), "post-setup-namespaces: frozen, record running, NS whole nftables frozen 15m0s")
	if !strings.Contains(s.log.String(), "not in "+first) {
		t.Error("the log does not name the namespace that it was not")
	}
	r := s.tx.(*Restore).record()
	if r.NetNS != other.ID() {
		t.Errorf("the record is about %s", r.NetNS)
	}
	want(t, s.story("network-unlock", "post-resume"), `
		network-unlock: unlocked, record running, NS whole nftables prepared
		post-resume: finished`)
}

// TestRestoreFails has a restore fail at each point.
func TestRestoreFails(t *testing.T) {
	for _, tc := range []struct {
		name  string
		keep  bool
		steps []string
		story string
	}{
		{"at once", false, []string{"pre-restore", "die", "settle"}, `
			pre-restore: frozen, record running, whole nftables frozen 15m0s
			die: frozen, record running, whole nftables frozen 15m0s
			settle: settled`},
		{"at once, to be kept", true, []string{"pre-restore", "die", "settle"}, `
			pre-restore: frozen, record running, whole nftables frozen 15m0s
			die: frozen, record running, whole nftables frozen 15m0s
			settle: settled, record frozen, whole nftables frozen 15m0s`},
		{"when the network was open", true, []string{"pre-restore", "network-unlock", "die", "settle"}, `
			pre-restore: frozen, record running, whole nftables frozen 15m0s
			network-unlock: unlocked, record running, whole nftables prepared
			die: unlocked, record running, whole nftables prepared
			settle: settled`},
		{"and cannot be thawed at once", false, []string{"pre-restore", "once ThawAll", "settle"}, `
			pre-restore: frozen, record running, whole nftables frozen 15m0s
			once ThawAll: frozen, record running, whole nftables frozen 15m0s
			settle: settled`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newTarget(t)
			if tc.keep {
				s.cfg.RestoreFailure = config.Keep
			}
			want(t, s.story(tc.steps...), tc.story)
		})
	}
}

// TestRestoreFailsWaiting has a restore fail before there is a namespace.
func TestRestoreFailsWaiting(t *testing.T) {
	s := newStage(t, false, "restore")
	s.useImages("dumped")
	want(t, s.story("pre-restore", "settle"), `
		pre-restore: waiting for its namespace, record running
		settle: settled`)
}

// TestRestoreFilterFails has the packet filter fail: nothing stays frozen by us, and
// what was frozen before stays so.
func TestRestoreFilterFails(t *testing.T) {
	s := newTarget(t)
	want(t, s.story("fail Freeze", "pre-restore"), `
		fail Freeze: no transaction
		pre-restore: no transaction; error: cannot prepare the restore: freeze `+inTarget+`: Freeze does not work`)

	s = newTarget(t)
	frozen(t, s, 10*time.Minute)
	want(t, s.story("fail Freeze", "pre-restore"), `
		fail Freeze: no transaction, whole nftables frozen 10m0s
		pre-restore: no transaction, whole nftables frozen 10m0s; error: cannot prepare the restore: freeze `+inTarget+`: Freeze does not work`)
}

// frozen freezes the stage's namespace as somebody else would.
func frozen(t *testing.T, s *stage, ttl time.Duration) {
	t.Helper()
	isolated, err := s.ns.Isolate()
	must(t, err)
	f, err := s.filter.Open(isolated, "nftables")
	must(t, err)
	must(t, f.Freeze(ttl))
	must(t, f.Close())
}

// TestRestoreAdopts takes over a freeze that is there, which does not end sooner, and
// the record of what has made it.
func TestRestoreAdopts(t *testing.T) {
	s := newTarget(t)
	frozen(t, s, time.Hour)
	by := &record.Record{ID: "manual-1", Op: record.Manual, Phase: record.Frozen, Scope: record.NetNS, NetNS: s.ns.ID(), Until: time.Now().Add(time.Hour)}
	must(t, by.Save())
	want(t, s.story("pre-restore", "network-unlock", "post-resume"), `
		pre-restore: frozen, record running, record frozen, whole nftables frozen 1h0m0s
		network-unlock: unlocked, record running, whole nftables prepared
		post-resume: finished`)
}

// TestRestoreSeveral restores two containers into one namespace, frozen at its birth for
// both. One whose restore fails does not count.
func TestRestoreSeveral(t *testing.T) {
	first := newTarget(t)
	args := []string{"restore", "--join-ns", fmt.Sprintf("net:%d", first.tree.Process.Pid)}
	frozen(t, first, time.Hour)
	birth := &record.Record{ID: "birth", Op: record.Manual, Phase: record.Frozen, Scope: record.NetNS, NetNS: first.ns.ID(), Until: time.Now().Add(time.Hour), Restores: 2}
	must(t, birth.Save())
	fails, second := first.another(args...), first.another(args...)
	want(t, fails.story("pre-restore", "network-unlock", "settle"), `
		pre-restore: frozen, record running, record frozen, whole nftables frozen 1h0m0s
		network-unlock: unlocked, record running, record frozen, whole nftables frozen 1h0m0s sealed
		settle: settled, record frozen, whole nftables frozen 1h0m0s sealed`)
	want(t, first.story("pre-restore", "network-unlock", "network-unlock", "post-resume"), `
		pre-restore: frozen, record running, record frozen, whole nftables frozen 1h0m0s
		network-unlock: unlocked, record running, record frozen, whole nftables frozen 1h0m0s sealed
		network-unlock: unlocked, record running, record frozen, whole nftables frozen 1h0m0s sealed
		post-resume: finished, record frozen, whole nftables frozen 1h0m0s sealed`)
	if now, err := record.Load("birth"); err != nil || now.MoreToCome() != 1 {
		t.Errorf("after the first one: %+v, %v", now, err)
	}
	want(t, second.story("pre-restore", "network-unlock", "post-resume"), `
		pre-restore: frozen, record running, record frozen, whole nftables frozen 1h0m0s
		network-unlock: unlocked, record running, whole nftables prepared
		post-resume: finished`)
}

// TestRestoreLosesSettler has the settler killed before each action.
func TestRestoreLosesSettler(t *testing.T) {
	want(t, newTarget(t).story("pre-restore", "lose-settler", "post-setup-namespaces", "lose-settler", "network-unlock", "lose-settler", "post-resume"), `
		pre-restore: frozen, record running, whole nftables frozen 15m0s
		lose-settler: no transaction, record running, whole nftables frozen 15m0s
		post-setup-namespaces: frozen, record running, whole nftables frozen 15m0s
		lose-settler: no transaction, record running, whole nftables frozen 15m0s
		network-unlock: unlocked, record running
		lose-settler: no transaction, record running
		post-resume: finished`)
}

// TestRestoreLosesSettlerEarly has the settler killed before a namespace is known: the
// next one has no back end of the former's to go on with.
func TestRestoreLosesSettlerEarly(t *testing.T) {
	s := newStage(t, false, "restore")
	s.useImages("dumped")
	s.cfg.Resume = config.None
	want(t, s.story("pre-restore", "lose-settler", "post-setup-namespaces", "network-unlock", "post-resume"), `
		pre-restore: waiting for its namespace, record running
		lose-settler: no transaction, record running
		post-setup-namespaces: frozen, record running, whole nftables frozen 15m0s
		network-unlock: unlocked, record running, whole nftables prepared
		post-resume: finished`)
}

// TestRestoreNothingOpen settles and finishes without a namespace: CRIU ended, or went
// on, before one was known (a nil namespace must not be used).
func TestRestoreNothingOpen(t *testing.T) {
	s := newStage(t, false, "restore")
	s.useImages("dumped")
	s.cfg.Resume = config.None
	want(t, s.story("pre-restore", "network-unlock", "post-resume"), `
		pre-restore: waiting for its namespace, record running
		network-unlock: unlocked, record running
		post-resume: finished`)
}

// TestRestoreRefuses has actions come in an order in which CRIU never calls them.
func TestRestoreRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before []string
		step   string
		story  string
	}{
		{
			"post-setup-namespaces when the network is open",
			[]string{"pre-restore", "network-unlock"},
			"post-setup-namespaces",
			"unlocked, record running, whole nftables prepared; error: post-setup-namespaces cannot come when the transaction is unlocked; nothing was changed [NF602]",
		},
		{
			"a second restore",
			[]string{"pre-restore", "network-unlock"},
			"pre-restore",
			"unlocked, record running, whole nftables prepared; error: this CRIU has a transaction under way already; nothing was changed [NF602]",
		},
		{
			"a second restore after the first one",
			[]string{"pre-restore", "network-unlock", "post-resume"},
			"pre-restore",
			"finished; error: this CRIU has a transaction under way already; nothing was changed [NF602]",
		},
		{
			"a dump's action",
			[]string{"pre-restore"},
			"post-dump",
			"frozen, record running, whole nftables frozen 15m0s; error: this action does not belong to a restore, which this CRIU began; nothing was changed [NF602]",
		},
		{
			"the other one of the split scripts",
			[]string{"pre-restore"},
			"network-unlock by post-dump",
			"frozen, record running, whole nftables frozen 15m0s",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newTarget(t)
			s.story(tc.before...)
			want(t, s.story(tc.step), tc.step+": "+tc.story)
		})
	}
}

// TestRestoreChecksTarget refuses a target in which the restore cannot work.
func TestRestoreChecksTarget(t *testing.T) {
	s := newTarget(t)
	nstest.Run(t, s.ns, "ip", "addr", "del", "10.9.0.1/32", "dev", "lo")
	want(t, s.story("pre-restore"), `
		pre-restore: no transaction; error: cannot prepare the restore: `+inTarget+` lacks the local address 10.9.0.1 of 2 connections in the images: give the restored container the address that the dumped one had (a static address), then restore again; nothing was changed [NF501]`)

	s = newTarget(t)
	must(t, os.Remove(filepath.Join(s.images, "inventory.img")))
	if got := s.story("pre-restore"); !strings.Contains(got, "nothing was changed") {
		t.Errorf("without images: %s", got)
	}
}

// TestRestoreSparesQueue refuses to remove a connection that somebody is about to
// accept, whatever the images say.
func TestRestoreSparesQueue(t *testing.T) {
	s := newTarget(t)
	cp, err := criuimg.Read(s.images)
	must(t, err)
	conn := cp.Conns[0]
	must(t, s.ns.Do(func() error {
		l, err := net.Listen("tcp", conn.Local.String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		c, err := (&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(conn.Remote)}).Dial("tcp", conn.Local.String())
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return err
	}))
	if got := s.story("pre-restore"); !strings.Contains(got, "waits in a listening queue") || !strings.Contains(got, "NF503") || !strings.Contains(got, "nothing was changed") {
		t.Errorf("got %s", got)
	}
}

// TestMachine is the table of states: whatever is not in it is refused, and a
// transition that the program makes all the same is a mistake.
func TestMachine(t *testing.T) {
	d := &Dump{machine: machine[dumpState]{allowed: dumpTransitions}}
	for from := dumpPrepared; from <= dumpSettled; from++ {
		for to := dumpPrepared; to <= dumpSettled; to++ {
			d.now = from
			err := d.check("something", to)
			allowed := from == to
			for _, next := range dumpTransitions[from] {
				allowed = allowed || next == to
			}
			if (err == nil) != allowed {
				t.Errorf("%s to %s: %v", from, to, err)
			}
			if to == dumpPrepared && from != to && err == nil {
				t.Errorf("%s can begin again", from)
			}
			panicked := func() (did bool) {
				defer func() { did = recover() != nil }()
				d.to(to)
				return false
			}()
			if panicked == allowed {
				t.Errorf("%s to %s: panic %v", from, to, panicked)
			}
		}
	}
	for state := restoreWaiting; state <= restoreSettled; state++ {
		if state.String() == "" || len(restoreTransitions[state]) == 0 && state < restoreFinished {
			t.Errorf("state %d (%s) leads nowhere", state, state)
		}
	}
}

// TestFindNetNS finds the target by what CRIU was told.
func TestFindNetNS(t *testing.T) {
	s := newTarget(t)
	cp, err := criuimg.Read(s.images)
	must(t, err)
	ns, where, err := findNetNS(s.env.CRIU.Ref, cp, nil)
	must(t, err)
	defer ns.Close()
	if ns.ID() != s.ns.ID() || where != "--join-ns" {
		t.Errorf("found %s through %s", ns, where)
	}
	plain := newStage(t, false, "restore")
	cp.NetNS = criuimg.Shared
	own, where, err := findNetNS(plain.env.CRIU.Ref, cp, nil)
	must(t, err)
	defer own.Close()
	if where != "CRIU's own namespace" || own.ID() == plain.ns.ID() {
		t.Errorf("found %s through %s", own, where)
	}
	cp.NetNS = criuimg.Dumped
	if ns, _, err := findNetNS(plain.env.CRIU.Ref, cp, nil); ns != nil || err != nil {
		t.Errorf("a namespace that CRIU makes was found: %v, %v", ns, err)
	}
}
