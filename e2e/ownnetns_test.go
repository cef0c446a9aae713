// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// ownNetns is plain criu with a process tree whose network namespace is part of
// the dump: CRIU dumps and restores what is in the namespace, our rules too. The
// root task is a client, and its child the server that it connects to.
type ownNetns struct{ plainCRIU }

func (ownNetns) start(k *task, args []string) {
	k.t.Helper()
	pairOfPrograms := fmt.Sprintf("ip link set lo up; %[1]s serve --listen 127.0.0.1:7000 --listen [::1]:7000 --stats %[2]s --log %[2]s.log & exec %[1]s %[3]s --stats %[4]s --log %[5]s",
		trafficProgram, k.data("server"), strings.Join(args, " "), k.data("stats"), k.data("log"))
	cmd := newCommand(context.Background(), "", "sh", "-c", pairOfPrograms)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.start(); err != nil {
		k.t.Fatal(err)
	}
	k.pid = cmd.Process.Pid
	go func() { _ = cmd.Wait() }()
}

func (e ownNetns) remove(k *task) {
	child, err := k.child()
	// The child is reaped by its new parent, since its own does not wait for it.
	end(k.t, k.pid)
	if err == nil {
		end(k.t, child)
	}
}

// child returns the pid of a task's only child.
func (k *task) child() (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", k.pid, k.pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// startOwn starts such a tree with these connections.
func startOwn(t *testing.T, conns ...string) endpoints {
	t.Helper()
	args := []string{"connect", "--peer", "127.0.0.1:7000", "--peer", "[::1]:7000"}
	for _, c := range conns {
		args = append(args, "--conn", c)
	}
	ends := endpoints{client: newTask(t, ownNetns{}, newTopology(t).describeHost("own"), args...)}
	ends.server = &task{t: t, id: "server"}
	poll(t, patience, "the server to start", func() (err error) {
		if ends.server.pid, err = ends.client.child(); err == nil {
			ends.server.stats, err = stats.Open(ends.client.data("server"))
		}
		return err
	})
	t.Cleanup(func() { _ = ends.server.stats.Close() })
	ends.awaitTraffic(patience, time.Now())
	return ends
}

// TestOwnNetns dumps and restores such a tree, and thaws a held one.
func TestOwnNetns(t *testing.T) {
	start := func(t *testing.T) endpoints { return startOwn(t, "push", "reqrep", "bulk") }
	netns := func(ends endpoints) string { return fmt.Sprintf("/proc/%d/ns/net", ends.client.pid) }

	for _, backend := range []string{"nftables", "iptables-nft", "iptables-legacy"} {
		t.Run("kill,"+backend, func(t *testing.T) {
			withNetfreeze(t, settings{policy: "kill", backend: backend}, plainCRIU{})
			ends := start(t)
			before := ruleset(t, netns(ends))
			if err := ends.client.engine.dump(ends.client, true); err != nil {
				t.Fatalf("dump: %v", err)
			}
			ends.client.awaitGone()
			ends.server.awaitGone()
			if err := ends.client.engine.restore(ends.client); err != nil {
				t.Fatalf("restore: %v", err)
			}
			ends.awaitResumption(time.Now())
			awaitRelease(t, patience, netns(ends), before)
			ends.checkAllBytes()
		})
	}
	t.Run("hold", func(t *testing.T) {
		withNetfreeze(t, settings{policy: "hold"}, plainCRIU{})
		ends := start(t)
		before := ruleset(t, netns(ends))
		if err := ends.client.engine.dump(ends.client, true); err != nil {
			t.Fatalf("dump: %v", err)
		}
		ends.client.awaitStop()
		mustRun(t, "", "", netfreeze, "thaw", fmt.Sprint(ends.client.pid))
		ends.awaitResumption(time.Now())
		awaitRelease(t, patience, netns(ends), before)
		ends.checkAllBytes()
	})
}

// TestFullBuffers dumps and restores a tree again and again that has both ends of its
// connections, with all of their buffers full, and traffic that never rests.
func TestFullBuffers(t *testing.T) {
	const trees = 2
	rounds := 25
	if n, err := strconv.Atoi(os.Getenv("NETFREEZE_FULL_ROUNDS")); err == nil {
		rounds = n
	}
	withNetfreeze(t, settings{policy: "kill"}, plainCRIU{})
	t.Run("all", func(t *testing.T) {
		for i := range trees {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				ends := startOwn(t, "bulk=2,slow,size=65536,interval=1ms", "reqrep", "push")
				for round := range rounds {
					time.Sleep(time.Duration(round) * 7 * time.Millisecond) // another moment each time
					if err := ends.client.engine.dump(ends.client, true); err != nil {
						t.Fatalf("round %d: dump: %v", round, err)
					}
					ends.client.awaitGone()
					ends.server.awaitGone()
					if err := ends.client.engine.restore(ends.client); err != nil {
						t.Fatalf("round %d: restore: %v", round, err)
					}
					begin := time.Now()
					ends.awaitTraffic(patience, begin)
					t.Logf("round %d: every connection carried traffic after %v", round, time.Since(begin))
				}
				ends.checkAllBytes()
			})
		}
	})
}
