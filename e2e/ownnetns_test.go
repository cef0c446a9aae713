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

// ownNetns is plain criu with a tree that brings its network namespace along:
// what is in the namespace, our rules too, is dumped and comes back. The tree
// is a client, and its child is the server that it talks to.
type ownNetns struct{ plainCRIU }

func (ownNetns) start(k *task, args []string) {
	k.t.Helper()
	both := fmt.Sprintf("ip link set lo up; %[1]s serve --listen 127.0.0.1:7000 --listen [::1]:7000 --stats %[2]s --log %[2]s.log & exec %[1]s %[3]s --stats %[4]s --log %[5]s",
		trafficProgram, k.data("server"), strings.Join(args, " "), k.data("stats"), k.data("log"))
	cmd := newCommand(context.Background(), "", "sh", "-c", both)
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
	// The parent does not wait for it, who adopts it does.
	end(k.t, k.pid)
	if err == nil {
		end(k.t, child)
	}
}

// child is the process number of a task's only child.
func (k *task) child() (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", k.pid, k.pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// TestOwnNetns dumps and restores such a tree, and thaws a held one.
func TestOwnNetns(t *testing.T) {
	start := func(t *testing.T) both {
		w := newWorld(t)
		b := both{client: newTask(t, ownNetns{}, w.describeHost("own"), "connect", "--peer", "127.0.0.1:7000",
			"--peer", "[::1]:7000", "--conn", "push", "--conn", "reqrep", "--conn", "bulk")}
		b.server = &task{t: t, id: "server"}
		poll(t, patience, "the server to start", func() (err error) {
			if b.server.pid, err = b.client.child(); err == nil {
				b.server.stats, err = stats.Open(b.client.data("server"))
			}
			return err
		})
		t.Cleanup(func() { _ = b.server.stats.Close() })
		b.progress(patience, time.Now())
		return b
	}
	netns := func(b both) string { return fmt.Sprintf("/proc/%d/ns/net", b.client.pid) }

	for _, backend := range []string{"nftables", "iptables-nft", "iptables-legacy"} {
		t.Run("kill,"+backend, func(t *testing.T) {
			withSuite(t, settings{policy: "kill", backend: backend}, plainCRIU{})
			b := start(t)
			before := ruleset(t, netns(b))
			if err := b.client.engine.dump(b.client, true); err != nil {
				t.Fatalf("dump: %v", err)
			}
			b.client.gone()
			b.server.gone()
			if err := b.client.engine.restore(b.client); err != nil {
				t.Fatalf("restore: %v", err)
			}
			b.promptly(time.Now())
			released(t, patience, netns(b), before)
			b.settle()
		})
	}
	t.Run("hold", func(t *testing.T) {
		withSuite(t, settings{policy: "hold"}, plainCRIU{})
		b := start(t)
		before := ruleset(t, netns(b))
		if err := b.client.engine.dump(b.client, true); err != nil {
			t.Fatalf("dump: %v", err)
		}
		b.client.stopped()
		mustRun(t, "", "", netfreeze, "thaw", fmt.Sprint(b.client.pid))
		b.promptly(time.Now())
		released(t, patience, netns(b), before)
		b.settle()
	})
}
