// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// TestDumpConcluded is a caller that keeps CRIU for more requests: CRIU is done with
// the dump when it waits for the next one.
func TestDumpConcluded(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps []string
		story string
	}{
		{"with success", []string{"write-stats", "receive"}, "settle: settled, record held, stopped, whole nftables frozen 15m0s sealed"},
		{"without", []string{"receive"}, "settle: settled"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t, false)
			s.story("pre-dump", "network-lock")
			if s.tx.Polls() || s.tx.Concluded() {
				t.Error("before the commit only CRIU's end concludes")
			}
			s.story("post-dump")
			if !s.tx.Polls() || s.tx.Finished() {
				t.Error("after the commit it may conclude at any time")
			}
			if s.tx.Concluded() {
				t.Error("concluded without a word from CRIU")
			}
			s.story(tc.steps...)
			for deadline := time.Now().Add(10 * time.Second); !s.tx.Concluded(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("never concluded")
				}
			}
			want(t, s.story("settle"), tc.story)
		})
	}
}

// TestDumpSlowDisk has CRIU take long for its last file, on a slow disk: as long as
// it lives and does not wait for a request, nothing is undone.
func TestDumpSlowDisk(t *testing.T) {
	s := newStage(t, false)
	s.story("pre-dump", "network-lock", "post-dump", "network-unlock")
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s.tx.Concluded() {
			t.Fatal("the dump counts as failed while CRIU writes")
		}
	}
	want(t, s.story("success", "settle"), `
		success: released, record committed, stopped, whole nftables frozen 15m0s
		settle: settled, record held, stopped, whole nftables frozen 15m0s sealed`)
}

// TestDumpOutcome is how CRIU's own word and what is seen decide.
func TestDumpOutcome(t *testing.T) {
	const held = "settle: settled, record held, stopped, whole nftables frozen 15m0s sealed"
	for _, tc := range []struct {
		name  string
		steps []string
		story string
	}{
		{"CRIU says so", []string{"exit 0"}, held}, // its last file did not fit on a full disk
		{"CRIU says so, and its parent has waited", []string{"exit 0", "reap"}, held},
		{"another dump's file in a shared work directory", []string{"write-stats", "exit 1"}, "settle: settled"},
		{"another dump's file, and CRIU is killed", []string{"write-stats", "die"}, "settle: settled"},
		{"killed after it ended the tasks", []string{"end-tasks", "die"}, "settle: settled, record ended, no tasks, whole nftables frozen 15m0s sealed"},
		{"failed after somebody ended the tasks", []string{"end-tasks", "exit 1"}, "settle: settled, record ended, no tasks, whole nftables frozen 15m0s sealed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if !proc.KeepsExitStatus() && tc.steps[len(tc.steps)-1] == "reap" {
				t.Skip("this kernel forgets exit statuses")
			}
			s := newStage(t, false)
			s.story("pre-dump", "network-lock", "post-dump", "network-unlock")
			s.story(tc.steps...)
			want(t, s.story("settle"), tc.story)
		})
	}
}

// TestDumpOtherStats has another dump's stats-dump appear in a shared work directory
// while CRIU is at work, and while it has the tasks: that says nothing.
func TestDumpOtherStats(t *testing.T) {
	s := newStage(t, false)
	s.cfg.Policy = config.Kill
	s.story("pre-dump", "network-lock", "post-dump", "write-stats")
	for end := time.Now().Add(2 * idleTime); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s.tx.Concluded() {
			t.Fatal("another dump's file concludes ours")
		}
	}
	if err := s.tx.(*Dump).settleOnce(); !fits(err, "CRIU is still at work") || err == nil {
		t.Errorf("settled while CRIU is at work: %v", err)
	}
	want(t, s.story("exit 1", "settle"), `
		exit 1: committed, record committed, stopped, whole nftables frozen 15m0s
		settle: settled`)
}

// TestWorkDir refuses a work directory that two dumps share where the kernel forgets
// how a process ended.
func TestWorkDir(t *testing.T) {
	s := newStage(t, false)
	must(t, checkWorkDir(s.env.CRIU.Ref, false))
	other := exec.Command("cp", "/bin/sleep", filepath.Join(s.work, "criu"))
	must(t, other.Run())
	second := exec.Command(filepath.Join(s.work, "criu"), "3600")
	second.Dir = s.work
	must(t, second.Start())
	t.Cleanup(func() { _ = second.Process.Kill(); _ = second.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // until it has its name
		err := checkWorkDir(s.env.CRIU.Ref, false)
		if fits(err, "has the same working directory") && fits(err, "NF404") && err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %v", err)
		}
	}
	must(t, checkWorkDir(s.env.CRIU.Ref, true))
}

// TestDumpTimeToLive has the freeze end before the images are complete: then the dump
// fails. From the commit on the time to live counts anew.
func TestDumpTimeToLive(t *testing.T) {
	s := newStage(t, false)
	s.story("pre-dump", "network-lock")
	s.tx.(*Dump).record().ExpireIn(-time.Second)
	s.filter.Advance(16 * time.Minute)
	if err := s.do("post-dump"); !fits(err, "ended before the images were complete") || !fits(err, "NF401") || err == nil {
		t.Errorf("got %v", err)
	}
	want(t, s.story("network-unlock", "exit 1", "settle"), `
		network-unlock: failed, record running, whole nftables prepared
		exit 1: failed, record running, whole nftables prepared
		settle: settled`)

	s = newStage(t, false)
	s.story("pre-dump", "network-lock")
	s.tx.(*Dump).record().ExpireIn(5 * time.Minute)
	s.filter.Advance(10 * time.Minute) // two thirds are over: it is renewed at once
	want(t, s.story("post-dump"), "post-dump: committed, record committed, stopped, whole nftables frozen 15m0s")

	s = newStage(t, false)
	s.story("pre-dump", "network-lock", "post-dump", "network-unlock")
	s.filter.Advance(5 * time.Minute)
	want(t, s.story("success", "settle"), `
		success: released, record committed, stopped, whole nftables frozen 10m0s
		settle: settled, record held, stopped, whole nftables frozen 15m0s sealed`)
	r, err := record.Load(s.env.CRIU.String())
	must(t, err)
	if left := r.Left(); left < 14*time.Minute {
		t.Errorf("the record says %v", left)
	}
}

// TestDumpOrphanedScript is a script whose CRIU was killed before it asked for its
// parent: the process that adopted it is not CRIU, and nothing is begun for it.
func TestDumpOrphanedScript(t *testing.T) {
	s := newStage(t, false)
	req := s.request("pre-dump")
	self, err := proc.Open(os.Getpid()) // pid 1 here
	must(t, err)
	defer self.Close()
	s.env.CRIU = self
	if _, err := Begin(s.env, req); err == nil || !fits(err, "does not belong to the calling process") {
		t.Errorf("got %v", err)
	}
	if all, err := record.All(); len(all) > 0 || err != nil || s.filter.String() != "" {
		t.Errorf("left: %v, %v, %s", all, err, s.filter)
	}
}

// TestDumpHeldTree refuses a tree that a former dump has left held: the hold stays as
// it is, and silent.
func TestDumpHeldTree(t *testing.T) {
	s := newStage(t, false)
	s.story("pre-dump", "network-lock", "post-dump", "network-unlock", "success", "settle")
	s.tx.Close()
	held := s.env.CRIU
	again := s.another()
	want(t, again.story("pre-dump"), `
		pre-dump: no transaction, record held, stopped, whole nftables frozen 15m0s sealed; error: cannot freeze the network of pid TREE: the tree of pid TREE is held: end that first, with netfreeze thaw TREE, then dump again; nothing was changed [NF403]`)
	_ = held
}

// TestDumpStoppedBefore notes which tasks were stopped before the dump.
func TestDumpStoppedBefore(t *testing.T) {
	s := newStage(t, false)
	must(t, s.tree.Process.Signal(unix.SIGSTOP))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if st, err := proc.ReadStat(s.tree.Process.Pid); err == nil && st.State == 'T' {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not stop")
		}
	}
	s.story("pre-dump")
	if r := s.tx.(*Dump).record(); len(r.StoppedBefore) != 1 || r.StoppedBefore[0].PID != s.tree.Process.Pid {
		t.Errorf("stopped before: %v", r.StoppedBefore)
	}
}

// TestStatsFile tells CRIU's file from one that was there before.
func TestStatsFile(t *testing.T) {
	s := newStage(t, false)
	path := filepath.Join(s.work, statsName)
	must(t, os.WriteFile(path, []byte("of a former dump"), 0o600))
	f, err := watchStats(s.env.CRIU.Ref)
	must(t, err)
	defer f.close()
	if f.written() {
		t.Error("a file that was there counts")
	}
	must(t, os.WriteFile(path, nil, 0o600))
	if f.written() {
		t.Error("an empty file counts")
	}
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, []byte("x"), 0o600))
	if !f.written() {
		t.Error("a new file does not count")
	}
	if (statsFile{}).written() {
		t.Error("nothing was watched")
	}
}

// TestDumpSealedAgain dumps an isolated tree a second time, which needs packets with
// CRIU's mark. However that ends, the tree goes on isolated, and none pass.
func TestDumpSealedAgain(t *testing.T) {
	s := newStage(t, false)
	s.cfg.Policy = config.Isolate
	s.story("pre-dump", "network-lock", "post-dump", "network-unlock", "success", "settle")
	s.tx.Close()
	first := s.env.CRIU.String()
	again := s.another()
	want(t, again.story("pre-dump", "network-unlock", "exit 1", "settle"), `
		pre-dump: prepared, record isolated, record running, whole nftables frozen 15m0s
		network-unlock: failed, record isolated, record running, whole nftables frozen 15m0s sealed
		exit 1: failed, record isolated, record running, whole nftables frozen 15m0s sealed
		settle: settled, record isolated, whole nftables frozen 15m0s sealed`)
	if r, err := record.Load(first); err != nil || r.Phase != record.Isolated {
		t.Errorf("the first dump's record: %+v, %v", r, err)
	}
}

// TestDumpSealFails tries again until nothing passes the freeze any more.
func TestDumpSealFails(t *testing.T) {
	s := newStage(t, false)
	s.cfg.Policy = config.Isolate
	s.story("pre-dump", "network-lock", "post-dump", "network-unlock", "success", "once Seal")
	want(t, s.story("settle"), `
		settle: settled, record isolated, whole nftables frozen 15m0s sealed`)
}

// TestDumpImagesGo has a caller that packs and removes the images as soon as CRIU has
// ended: what they say of the connections is known all the same.
func TestDumpImagesGo(t *testing.T) {
	s := newStage(t, false)
	s.story("pre-dump", "network-lock", "post-dump")
	s.tx.(*Dump).background.Wait()
	s.removeImages()
	s.story("network-unlock", "success", "settle")
	r, err := record.Load(s.env.CRIU.String())
	must(t, err)
	if len(r.Conns) == 0 {
		t.Errorf("no connection is known; log:\n%s", s.log)
	}

	// One that is even faster is told of in the log.
	s = newStage(t, false)
	s.cfg.Policy = config.Run
	s.story("pre-dump", "network-lock", "post-dump")
	s.removeImages()
	s.tx.(*Dump).nudgeByImages()
	if !strings.Contains(s.log.String(), "level=warning msg=\"not every connection is nudged") {
		t.Errorf("log:\n%s", s.log)
	}
}
