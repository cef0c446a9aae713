// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/rules"
	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// few is traffic in both directions, on a few connections.
var few = []string{"push,interval=5ms", "reqrep,interval=5ms", "bulk"}

// TestSameNetns restores into the namespace in which the task was dumped, after
// each way in which the task can have ended. The restore adopts the freeze that
// the dump left there.
func TestSameNetns(t *testing.T) {
	restore := func(t *testing.T, p *pair) {
		p.dumped.awaitEnd()
		p.dumped.engine.remove(p.dumped)
		if left := mustRun(t, p.app.netns, "", "ss", "-Htan"); left != "" {
			t.Errorf("sockets are left in the namespace:\n%s", left)
		}
		p.restore()
	}
	t.Run("kill", func(t *testing.T) {
		withNetfreeze(t, settings{policy: "kill"})
		forEngines(t, func(t *testing.T, e engine) {
			p := newPair(t, e, true, few)
			p.dump()
			restore(t, p)
		})
	})
	t.Run("hold and kill", func(t *testing.T) {
		withNetfreeze(t, settings{policy: "hold"})
		forEngines(t, func(t *testing.T, e engine) {
			p := newPair(t, e, true, few)
			p.dump()
			mustRun(t, "", "", netfreeze, "kill", fmt.Sprint(p.dumped.pid))
			restore(t, p)
		})
	})
	t.Run("killed by CRIU", func(t *testing.T) {
		withNetfreeze(t, settings{policy: "hold"})
		forEngines(t, func(t *testing.T, e engine) {
			p := newPair(t, e, true, few)
			if err := e.dump(p.dumped, false); err != nil {
				t.Fatalf("dump: %v", err)
			}
			restore(t, p)
		})
	})
}

// TestHold undoes a hold: the application continues where it stopped.
func TestHold(t *testing.T) {
	withNetfreeze(t, settings{policy: "hold"})
	forEngines(t, func(t *testing.T, e engine) {
		p := newPair(t, e, true, few)
		p.dump()
		p.dumped.awaitStop()
		held := p.dumped.stats.Ticks()
		if s := status(t, p.app.netns); !strings.Contains(s, "hold") {
			t.Errorf("netfreeze status does not report the hold: %q", s)
		}
		time.Sleep(live)
		if now := p.dumped.stats.Ticks(); now != held {
			t.Errorf("the held task has ticked %d times", now-held)
		}
		mustRun(t, "", "", netfreeze, "thaw", fmt.Sprint(p.dumped.pid))
		p.checkUnharmed(time.Now())
	})
}

// TestNoInstruction dumps a program that counts without a pause: it does not
// count any further once CRIU has saved its state.
func TestNoInstruction(t *testing.T) {
	for _, policy := range []string{"hold", "kill"} {
		t.Run(policy, func(t *testing.T) {
			withNetfreeze(t, settings{policy: policy}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, few, "--busy")
			then := filepath.Join(t.TempDir(), "stats")
			p.dump("--action-script", script(t, "post-dump", "cp "+p.dumped.data("stats")+" "+then))
			p.dumped.awaitStop()
			if policy == "kill" {
				p.dumped.awaitEnd()
			}
			time.Sleep(100 * time.Millisecond)
			saved, err := stats.Open(then)
			if err != nil {
				t.Fatal(err)
			}
			defer saved.Close()
			if n := p.dumped.stats.Ticks() - saved.Ticks(); n != 0 {
				t.Errorf("the program has counted %d further after it was dumped", n)
			}
		})
	}
}

// TestRun lets the task continue; it notices nothing.
func TestRun(t *testing.T) {
	withNetfreeze(t, settings{policy: "run"})
	forEngines(t, func(t *testing.T, e engine) {
		p := newPair(t, e, true, append([]string{"udp=2"}, few...))
		p.dump()
		p.checkUnharmed(time.Now())
	})
}

// sneak sends text from the app's namespace as a program with CAP_NET_RAW can: in a
// datagram with CRIU's mark, and in a frame from a packet socket. It may fail.
func (p *pair) sneak(text string) {
	_ = within(p.app.netns, func() error {
		dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
			err2 := c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK, rules.Mark)
			})
			return errors.Join(err, err2)
		}}
		conn, err := dialer.Dial("udp", net.JoinHostPort(p.peer.v4.String(), "9"))
		if err == nil {
			_, err = conn.Write([]byte("datagram " + text))
			_ = conn.Close()
		}
		return errors.Join(err, sendFrame(iface, broadcast, "frame "+text))
	})
}

// TestIsolate lets the task continue, but nothing that it sends reaches the peer, not
// even with CRIU's mark or from a packet socket.
func TestIsolate(t *testing.T) {
	withNetfreeze(t, settings{policy: "isolate"})
	forEngines(t, func(t *testing.T, e engine) {
		p := newPair(t, e, true, few)
		p.sneak("before")
		p.dump()
		ticks, isolated := p.dumped.stats.Ticks(), time.Now()
		poll(t, patience, "the policy to be applied", func() error {
			if out := status(t, p.app.netns); !strings.Contains(out, `"isolated"`) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		p.sneak("behind")
		poll(t, patience, "the task to go on", func() error {
			if p.dumped.stats.Ticks() == ticks {
				return fmt.Errorf("it has not ticked")
			}
			return nil
		})
		time.Sleep(500 * time.Millisecond)
		for _, s := range p.client.stats.Snapshots() {
			if s.LastAt > isolated.UnixNano() {
				t.Errorf("connection %d: the peer has received bytes from an isolated task", s.ID)
			}
		}
		p.packets.mark("what got out")
		recorded, err := os.ReadFile(p.packets.file)
		if err != nil {
			t.Fatal(err)
		}
		for text, want := range map[string]bool{"datagram before": true, "frame before": true, "datagram behind": false, "frame behind": false} {
			if bytes.Contains(recorded, []byte(text)) != want {
				t.Errorf("%s: captured %v, want %v", text, !want, want)
			}
		}
		mustRun(t, "", "", netfreeze, "thaw", p.app.netns)
		p.checkUnharmed(time.Now())
	})
}

// script writes an action-script that runs a shell command at one action.
func script(t *testing.T, action, do string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	text := fmt.Sprintf("#!/bin/sh\nif [ \"$CRTOOLS_SCRIPT_ACTION\" = %s ]; then %s; fi\n", action, do)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
