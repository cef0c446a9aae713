// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// busyAccepting stops a server, has the peer connect to it, and lets the server
// continue after a while: until then there are connections waiting to be
// accepted.
func (k *task) busyAccepting(t *testing.T, p *pair, late time.Duration) {
	t.Helper()
	k.signal(syscall.SIGSTOP)
	for range 10 {
		var c net.Conn
		err := within(p.peer.netns, func() (err error) {
			c, err = net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", p.app.v4, p.app.port), patience)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	goOn := time.AfterFunc(late, func() { k.signal(syscall.SIGCONT) })
	t.Cleanup(func() { goOn.Stop() })
}

// TestSettlerKilled kills the settler in the middle of a restore: the next action
// starts another one, which learns from the record what to do.
func TestSettlerKilled(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, plainCRIU{})
	for _, action := range []string{"post-setup-namespaces", "post-restore"} {
		t.Run(action, func(t *testing.T) {
			p := newPair(t, plainCRIU{}, true, few)
			p.dump()
			p.dumped.awaitEnd()
			p.dumped.engine.remove(p.dumped)
			end := script(t, action, "kill -KILL $(pidof netfreeze-settler)")
			if err := p.dumped.engine.restore(p.dumped, scripted(end, true)...); err != nil {
				t.Fatalf("restore: %v", err)
			}
			p.checkUnharmed(time.Now())
		})
	}
}

// TestCRIULock kills a CRIU that has locked the network with rules of its own, as
// it does unless --network-lock skip is given. Those rules are removed too.
func TestCRIULock(t *testing.T) {
	withNetfreeze(t, settings{policy: "hold"}, plainCRIU{})
	for _, lock := range []string{"iptables", "nftables"} {
		t.Run(lock, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, plainCRIU{}, true, few)
			end := script(t, "post-dump", "kill -KILL $PPID")
			options := []string{"--no-default-config", "--network-lock", lock, "--action-script", end, "--action-script", hook}
			if err := p.dumped.engine.dump(p.dumped, true, options...); err == nil {
				t.Fatal("the dump has not failed")
			}
			failed := time.Now()
			awaitRelease(t, back, p.app.netns, p.rules)
			p.checkUnharmed(failed)
		})
	}
}

// TestHookRefusesHost has a CRIU that runs in a namespace of its own dump a task
// of the host's namespace: the hook must not freeze that, and the dump fails
// before the task is touched.
func TestHookRefusesHost(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, plainCRIU{})
	before := ruleset(t, "")
	topo := newTopology(t)
	elsewhere := topo.newHost("elsewhere")
	k := newTask(t, plainCRIU{}, topo.describeHost("app"), "serve", "--listen", "127.0.0.1:7999")
	_, err := runIn(elsewhere.netns, "", "criu", "dump", "-t", fmt.Sprint(k.pid), "-D", k.images(), "-o", "dump.log", "--tcp-established", "--leave-running")
	if err == nil {
		t.Fatal("the dump has not failed")
	}
	if log := logExcerpt(k.images() + "/dump.log"); !strings.Contains(log, "must not be frozen: it is the host's") {
		t.Errorf("the log does not say why:\n%s", log)
	}
	if now := ruleset(t, ""); now != before {
		t.Errorf("the host's rules are\n%s\nand were\n%s", now, before)
	}
	if err := k.healthy(); err != nil || !alive(k.pid) {
		t.Errorf("the task was harmed: %v", err)
	}
}
