// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// back is the time within which the network is back after a failed dump.
const back = time.Second

// scripted returns CRIU's options for two action-scripts, ours and another one,
// in place of those in default.conf. CRIU runs the last one given first.
func scripted(other string, oursFirst bool) []string {
	order := []string{hook, other}
	if oursFirst {
		order = []string{other, hook}
	}
	// TestCRIULock covers what CRIU's own lock leaves after a SIGKILL.
	return []string{"--no-default-config", "--network-lock", "skip", "--action-script", order[0], "--action-script", order[1]}
}

// TestFailure makes dumps fail at each action, before and after our own script,
// by another script's exit code or by a SIGKILL to CRIU. The network comes back,
// and the application continues as if nobody had tried to dump it.
func TestFailure(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, plainCRIU{})
	type failure struct {
		action, how, do string
		oursFirst       bool
	}
	var failures []failure
	for _, action := range []string{"pre-dump", "network-lock", "post-dump"} {
		for _, oursFirst := range []bool{false, true} {
			failures = append(failures, failure{action, "exit", "exit 1", oursFirst})
			// A CRIU that is killed while it writes the images leaves behind
			// running tasks whose sockets are in repair mode and cannot be read;
			// after our post-dump the tasks are stopped by then.
			if action != "post-dump" || oursFirst {
				failures = append(failures, failure{action, "SIGKILL", "kill -KILL $PPID", oursFirst})
			}
		}
	}
	for _, f := range failures {
		when := map[bool]string{false: "before", true: "after"}[f.oursFirst]
		t.Run(fmt.Sprintf("%s,%s,%s", f.action, when, f.how), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, plainCRIU{}, true, few)
			caller := filepath.Join(t.TempDir(), "criu")
			options := scripted(script(t, f.action, "echo $PPID >"+caller+"; "+f.do), f.oursFirst)
			if err := p.dumped.engine.dump(p.dumped, true, options...); err == nil {
				t.Fatal("the dump has not failed")
			}
			failed := time.Now()
			criu, err := os.ReadFile(caller)
			if err != nil {
				t.Fatal(err)
			}
			noRecords(t, p.app.netns, strings.TrimSpace(string(criu)))
			awaitRelease(t, back, p.app.netns, p.rules)
			p.checkUnharmed(failed)
		})
	}
}

// noRecords waits until no state file mentions the namespace or belongs to the
// transaction of the CRIU with this pid. It is to be called before "netfreeze
// status", which removes stale files.
func noRecords(t *testing.T, netns, criu string) {
	t.Helper()
	var ns syscall.Stat_t
	if err := syscall.Stat(netnsPath(netns), &ns); err != nil {
		t.Fatal(err)
	}
	poll(t, back, "removal of the transaction's files", func() error {
		files, err := filepath.Glob(filepath.Join(stateDir, "*"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if strings.HasPrefix(filepath.Base(file), criu+"@") {
				return fmt.Errorf("%s is left", file)
			}
			if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), fmt.Sprint(ns.Ino)) {
				return fmt.Errorf("%s is left: %s", file, b)
			}
		}
		return nil
	})
}

// TestNobodyLeft kills CRIU and every process of ours in the middle of a dump:
// the kernel lets packets through again when the time to live is over.
func TestNobodyLeft(t *testing.T) {
	const ttl = 4 * time.Second
	for _, backend := range []string{"nftables", "iptables-nft", "iptables-legacy"} {
		t.Run(backend, func(t *testing.T) {
			withNetfreeze(t, settings{policy: "kill", backend: backend, ttl: ttl}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, few)
			// Right after the freeze, before CRIU has touched a socket.
			end := script(t, "network-lock", "kill -KILL $(pidof netfreeze-settler) $PPID")
			if err := p.dumped.engine.dump(p.dumped, true, scripted(end, true)...); err == nil {
				t.Fatal("the dump has not failed")
			}
			failed := time.Now()
			p.awaitTraffic(ttl+patience, failed)
			took := time.Since(failed)
			t.Logf("every connection carried traffic after %s", took)
			if took < ttl/2 {
				t.Errorf("that is before the end of the time to live of %s: was it frozen at all?", ttl)
			}
			p.checkAllBytes()
			if err := p.packets.since(p.from).stray(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMissingAddress restores where an address is missing: the restore fails
// with a clear error, before any socket of the task has been restored.
func TestMissingAddress(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"})
	forEngines(t, func(t *testing.T, e engine) {
		p := newPair(t, e, true, few)
		p.dump()
		p.dumped.awaitEnd()
		e.remove(p.dumped)
		p.app.topo.removeNetns(p.app.netns)
		p.app.netns = p.app.nextNetns(freeze(t))
		err := e.restore(p.dumped)
		if err == nil {
			t.Fatal("the restore has not failed")
		}
		if !strings.Contains(err.Error(), p.app.v4.String()) && !strings.Contains(err.Error(), p.app.v6.String()) {
			t.Errorf("the error names neither %s nor %s: %v", p.app.v4, p.app.v6, err)
		}
		if left := mustRun(t, p.app.netns, "", "ss", "-Htan"); left != "" {
			t.Errorf("sockets were restored:\n%s", left)
		}
	})
}
