// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// TestDumpPolicies tells the story of a dump that succeeds, once per policy.
func TestDumpPolicies(t *testing.T) {
	for policy, story := range map[config.Policy]string{
		config.Hold: `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			network-lock: frozen, record running, whole nftables frozen 15m0s
			post-dump: committed, record committed, stopped, whole nftables frozen 15m0s
			network-unlock: released, record committed, stopped, whole nftables frozen 15m0s
			success: released, record committed, stopped, whole nftables frozen 15m0s
			settle: settled, record held, stopped, whole nftables frozen 15m0s sealed`,
		config.Run: `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			network-lock: frozen, record running, whole nftables frozen 15m0s
			post-dump: committed, record committed, whole nftables frozen 15m0s
			network-unlock: released, record committed, whole nftables prepared
			success: released, record committed, whole nftables prepared
			settle: settled`,
		config.Isolate: `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			network-lock: frozen, record running, whole nftables frozen 15m0s
			post-dump: committed, record committed, whole nftables frozen 15m0s
			network-unlock: released, record committed, whole nftables frozen 15m0s
			success: released, record committed, whole nftables frozen 15m0s
			settle: settled, record isolated, whole nftables frozen 15m0s sealed`,
		config.Kill: `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			network-lock: frozen, record running, whole nftables frozen 15m0s
			post-dump: committed, record committed, stopped, whole nftables frozen 15m0s
			network-unlock: released, record committed, stopped, whole nftables frozen 15m0s
			success: released, record committed, stopped, whole nftables frozen 15m0s
			settle: settled, record ended, whole nftables frozen 15m0s sealed`,
	} {
		t.Run(string(policy), func(t *testing.T) {
			s := newStage(t, false)
			s.cfg.Policy = policy
			want(t, s.story("pre-dump", "network-lock", "post-dump", "network-unlock", "success", "settle"), story)
		})
	}
}

// TestDumpEnds is a dump whose caller has CRIU end the tasks: no network-unlock
// comes, and the freeze stays whatever the policy says.
func TestDumpEnds(t *testing.T) {
	for _, policy := range config.Policies() {
		s := newStage(t, false)
		s.cfg.Policy = policy
		s.story("pre-dump", "network-lock", "post-dump", "end-tasks", "success")
		want(t, s.story("settle"), "settle: settled, record ended, no tasks, whole nftables frozen 15m0s sealed")
	}
}

// TestDumpFails has a dump fail at each point, with and without a word from CRIU.
func TestDumpFails(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps []string
		story string
	}{
		{"before the lock", []string{"pre-dump", "die", "settle"}, `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			die: prepared, record running, whole nftables prepared syn-held
			settle: settled`},
		{"after the lock", []string{"pre-dump", "network-lock", "network-unlock", "die", "settle"}, `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			network-lock: frozen, record running, whole nftables frozen 15m0s
			network-unlock: failed, record running, whole nftables prepared
			die: failed, record running, whole nftables prepared
			settle: settled`},
		{"killed after the lock", []string{"pre-dump", "network-lock", "die", "settle"}, `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			network-lock: frozen, record running, whole nftables frozen 15m0s
			die: frozen, record running, whole nftables frozen 15m0s
			settle: settled`},
		{"killed after the commit", []string{"pre-dump", "network-lock", "post-dump", "die", "settle"}, `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			network-lock: frozen, record running, whole nftables frozen 15m0s
			post-dump: committed, record committed, stopped, whole nftables frozen 15m0s
			die: committed, record committed, stopped, whole nftables frozen 15m0s
			settle: settled`},
		{"another script fails after the commit", []string{"pre-dump", "network-lock", "post-dump", "network-unlock", "die", "settle"}, `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			network-lock: frozen, record running, whole nftables frozen 15m0s
			post-dump: committed, record committed, stopped, whole nftables frozen 15m0s
			network-unlock: released, record committed, stopped, whole nftables frozen 15m0s
			die: released, record committed, stopped, whole nftables frozen 15m0s
			settle: settled`},
		{"the tasks are killed meanwhile", []string{"pre-dump", "network-lock", "end-tasks", "die", "settle"}, `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			network-lock: frozen, record running, whole nftables frozen 15m0s
			end-tasks: frozen, record running, no tasks, whole nftables frozen 15m0s
			die: frozen, record running, no tasks, whole nftables frozen 15m0s
			settle: settled, no tasks`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want(t, newStage(t, false).story(tc.steps...), tc.story)
		})
	}
}

// TestDumpRepeats has every action come twice, as where CRIU read its
// configuration twice.
func TestDumpRepeats(t *testing.T) {
	want(t, newStage(t, false).story("pre-dump", "pre-dump", "network-lock", "network-lock", "post-dump", "post-dump",
		"network-unlock", "network-unlock", "success", "settle"), `
		pre-dump: prepared, record running, whole nftables prepared syn-held
		pre-dump: prepared, record running, whole nftables prepared syn-held
		network-lock: frozen, record running, whole nftables frozen 15m0s
		network-lock: frozen, record running, whole nftables frozen 15m0s
		post-dump: committed, record committed, stopped, whole nftables frozen 15m0s
		post-dump: committed, record committed, stopped, whole nftables frozen 15m0s
		network-unlock: released, record committed, stopped, whole nftables frozen 15m0s
		network-unlock: released, record committed, stopped, whole nftables frozen 15m0s
		success: released, record committed, stopped, whole nftables frozen 15m0s
		settle: settled, record held, stopped, whole nftables frozen 15m0s sealed`)
}

// TestDumpRefuses has actions come in an order in which CRIU never calls them.
func TestDumpRefuses(t *testing.T) {
	const ready = "prepared, record running, whole nftables prepared syn-held"
	for _, tc := range []struct {
		name   string
		before []string
		step   string
		story  string
	}{
		{"nothing came before", nil, "network-lock", "no transaction; error: no pre-dump or pre-restore came before from this CRIU; nothing was changed (is the script listed for all actions? see netfreeze install) [NF601]"},
		{
			"post-dump after the dump failed",
			[]string{"pre-dump", "network-lock", "network-unlock"},
			"post-dump",
			"failed, record running, whole nftables prepared; error: post-dump cannot come when the transaction is failed; nothing was changed [NF602]",
		},
		{
			"network-lock after the dump failed",
			[]string{"pre-dump", "network-unlock"},
			"network-lock",
			"failed, record running, whole nftables prepared; error: network-lock cannot come when the transaction is failed; nothing was changed [NF602]",
		},
		{
			"network-lock after the commit",
			[]string{"pre-dump", "network-lock", "post-dump"},
			"network-lock",
			"committed, record committed, stopped, whole nftables frozen 15m0s; error: network-lock cannot come when the transaction is committed; nothing was changed [NF602]",
		},
		{
			"post-dump after network-unlock",
			[]string{"pre-dump", "network-lock", "post-dump", "network-unlock"},
			"post-dump",
			"released, record committed, stopped, whole nftables frozen 15m0s; error: post-dump cannot come when the transaction is released; nothing was changed [NF602]",
		},
		{
			"a second dump",
			[]string{"pre-dump", "network-lock", "post-dump"},
			"pre-dump",
			"committed, record committed, stopped, whole nftables frozen 15m0s; error: this CRIU has a transaction under way already; nothing was changed [NF602]",
		},
		{"a restore", []string{"pre-dump"}, "pre-restore", ready + "; error: this CRIU has a transaction under way already; nothing was changed [NF602]"},
		{"a restore's action", []string{"pre-dump"}, "post-resume", ready + "; error: this action does not belong to a dump, which this CRIU began; nothing was changed [NF602]"},
		{"the other one of the split scripts", []string{"pre-dump"}, "network-unlock by post-resume", ready},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t, false)
			s.story(tc.before...)
			want(t, s.story(tc.step), tc.step+": "+tc.story)
		})
	}
}

// TestDumpFilterFails has the packet filter fail at each point: before the commit
// the dump fails, after it what is left to do is tried again.
func TestDumpFilterFails(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps []string
		story string
	}{
		{"no back end", []string{"fail Open", "pre-dump"}, `
			fail Open: no transaction
			pre-dump: no transaction; error: cannot freeze the network of pid TREE: Open does not work`},
		{"cannot prepare", []string{"fail Prepare", "pre-dump"}, `
			fail Prepare: no transaction
			pre-dump: no transaction; error: cannot freeze the network of pid TREE: put the rules in place: Prepare does not work`},
		{"cannot prepare, nor take that back", []string{"fail Prepare", "fail ThawAll", "pre-dump"}, `
			fail Prepare: no transaction
			fail ThawAll: no transaction
			pre-dump: no transaction, record running; error: cannot freeze the network of pid TREE: put the rules in place: Prepare does not work
			thaw NS (TREE/ns/net): ThawAll does not work`},
		{"cannot arm", []string{"pre-dump", "fail Freeze", "network-lock", "network-unlock", "exit 1", "settle"}, `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			fail Freeze: prepared, record running, whole nftables prepared syn-held
			network-lock: prepared, record running, whole nftables prepared syn-held; error: freeze NS (TREE/ns/net): Freeze does not work (the tasks go on as they were)
			network-unlock: failed, record running, whole nftables prepared
			exit 1: failed, record running, whole nftables prepared
			settle: settled`},
		{"cannot arm at post-dump what was not armed", []string{"pre-dump", "fail Freeze", "post-dump", "mend Freeze", "post-dump"}, `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			fail Freeze: prepared, record running, whole nftables prepared syn-held
			post-dump: prepared, record running, whole nftables prepared syn-held; error: freeze NS (TREE/ns/net): Freeze does not work
			mend Freeze: prepared, record running, whole nftables prepared syn-held
			post-dump: committed, record committed, stopped, whole nftables frozen 15m0s`},
		{"cannot lift", []string{"pre-dump", "network-lock", "fail Lift", "network-unlock", "exit 1", "settle"}, `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			network-lock: frozen, record running, whole nftables frozen 15m0s
			fail Lift: frozen, record running, whole nftables frozen 15m0s
			network-unlock: failed, record running
			exit 1: failed, record running
			settle: settled`},
		{"cannot thaw at once", []string{"pre-dump", "network-lock", "exit 1", "once ThawAll", "settle"}, `
			pre-dump: prepared, record running, whole nftables prepared syn-held
			network-lock: frozen, record running, whole nftables frozen 15m0s
			exit 1: frozen, record running, whole nftables frozen 15m0s
			once ThawAll: frozen, record running, whole nftables frozen 15m0s
			settle: settled`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want(t, newStage(t, false).story(tc.steps...), tc.story)
		})
	}
}

// TestDumpLosesSettler has the settler killed before each action: the next one goes
// on from the record.
func TestDumpLosesSettler(t *testing.T) {
	s := newStage(t, false)
	want(t, s.story("pre-dump", "lose-settler", "network-lock", "lose-settler", "post-dump", "lose-settler", "network-unlock", "success", "settle"), `
		pre-dump: prepared, record running, whole nftables prepared syn-held
		lose-settler: no transaction, record running, whole nftables prepared syn-held
		network-lock: frozen, record running, whole nftables frozen 15m0s
		lose-settler: no transaction, record running, whole nftables frozen 15m0s
		post-dump: committed, record committed, stopped, whole nftables frozen 15m0s
		lose-settler: no transaction, record committed, stopped, whole nftables frozen 15m0s
		network-unlock: released, record committed, stopped, whole nftables frozen 15m0s
		success: released, record committed, stopped, whole nftables frozen 15m0s
		settle: settled, record held, stopped, whole nftables frozen 15m0s sealed`)
	if !strings.Contains(s.log.String(), "the settler was gone; a new one goes on with the transaction") {
		t.Error("the log does not say that a new settler goes on")
	}
}

// TestDumpBadRequests refuses what CRIU would not ask, and changes nothing.
func TestDumpBadRequests(t *testing.T) {
	s := newStage(t, false)
	req := s.request("pre-dump")
	req.InitPID = ""
	if _, err := Begin(s.env, req); !fits(err, "CRTOOLS_INIT_PID is not set") {
		t.Errorf("no root: %v", err)
	}
	s.story("pre-dump", "network-lock")
	req = s.request("post-dump")
	req.ImageDir = "/tmp"
	if err := s.tx.Do(req); !fits(err, "does not belong to the calling process") {
		t.Errorf("another directory: %v", err)
	}
	want(t, s.story("post-dump"), "post-dump: committed, record committed, stopped, whole nftables frozen 15m0s")
}

// TestDumpShared is a tree in CRIU's own namespace: only its connections are ever
// frozen, from pre-dump on.
func TestDumpShared(t *testing.T) {
	s := newStage(t, true)
	must(t, exec.Command("ip", "link", "set", "lo", "up").Run()) // the tests' own namespace
	s.tree = child(t, "connect")
	stdin, err := s.tree.StdinPipe()
	must(t, err)
	stdout, err := s.tree.StdoutPipe()
	must(t, err)
	must(t, s.tree.Start())
	read := make([]byte, 64)
	_, err = stdout.Read(read)
	must(t, err)
	s.useImages("shared")
	want(t, s.story("pre-dump", "network-lock", "post-dump"), `
		pre-dump: frozen, record running, conns nftables OWNER 2 frozen 15m0s
		network-lock: frozen, record running, conns nftables OWNER 2 frozen 15m0s
		post-dump: committed, record committed, stopped, conns nftables OWNER 2 frozen 15m0s`)
	for _, call := range s.filter.Calls() {
		if call == "Freeze" || call == "Prepare" {
			t.Errorf("%s of a whole namespace was called", call)
		}
	}
	want(t, s.story("success", "settle"), `
		success: committed, record committed, stopped, conns nftables OWNER 2 frozen 15m0s
		settle: settled, record held, stopped, conns nftables OWNER 2 frozen 15m0s sealed`)
	_ = stdin.Close()
}

// TestDumpStopsTree stops every process of the tree, and rolls all of them back.
func TestDumpStopsTree(t *testing.T) {
	s := newStage(t, false)
	s.story("pre-dump", "network-lock", "post-dump")
	r := s.tx.(*Dump).record()
	if len(r.Tree) != 1 || !r.Stopped {
		t.Errorf("the record has %d tasks, stopped %v", len(r.Tree), r.Stopped)
	}
	s.story("exit 1", "settle")
	st, err := proc.ReadStat(s.tree.Process.Pid)
	must(t, err)
	if st.State == 'T' {
		t.Error("the task is stopped after a rollback")
	}
	if err := unix.Kill(s.tree.Process.Pid, 0); err != nil {
		t.Errorf("the task has gone: %v", err)
	}
}
