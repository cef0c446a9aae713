// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// late is how much later than configured a freeze may end: iptables counts whole
// seconds, and the test does not try to connect all the time.
const late = 2 * time.Second

// dialServer opens a connection from the peer to the server, to be closed at the
// end of the test. It returns an error if nobody answers.
func (p *pair) dialServer() error {
	const moment = 300 * time.Millisecond
	return within(p.peer.netns, func() error {
		c, err := net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", p.app.v4, p.app.port), moment)
		if err == nil {
			p.dumped.t.Cleanup(func() { _ = c.Close() })
		}
		return err
	})
}

// checkShut checks that the server's namespace drops new connections.
func (p *pair) checkShut() {
	p.dumped.t.Helper()
	err := p.dialServer()
	var silence net.Error
	if !errors.As(err, &silence) || !silence.Timeout() {
		p.dumped.t.Errorf("a new connection should have got no answer: %v", err)
	}
}

// awaitOpen waits until the server's namespace lets new connections in, and
// returns when that was.
func (p *pair) awaitOpen(limit time.Duration) time.Time {
	p.dumped.t.Helper()
	poll(p.dumped.t, limit, "answer to a new connection", p.dialServer)
	return time.Now()
}

// dumpOrphaned dumps with a script that kills CRIU and the settler at an action,
// right after our own script.
func (p *pair) dumpOrphaned(action string) {
	p.dumped.t.Helper()
	end := script(p.dumped.t, action, "kill -KILL $(pidof netfreeze-settler) $PPID")
	if err := p.dumped.engine.dump(p.dumped, true, scripted(end, true)...); err == nil {
		p.dumped.t.Fatal("the dump has not failed")
	}
}

// TestOrphanPrepared kills CRIU and the settler when everything but the freeze
// itself is in place: only new connections, and quiet peers, have to wait, and not for long.
func TestOrphanPrepared(t *testing.T) {
	// How long SYNs are held back: the drain plus a margin.
	const held = 100*time.Millisecond + 5*time.Second
	for _, backend := range []string{"nftables", "iptables-nft", "iptables-legacy"} {
		t.Run(backend, func(t *testing.T) {
			withNetfreeze(t, settings{policy: "hold", backend: backend, more: `drain = "100ms"`}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, few)
			begun := time.Now()
			p.dumpOrphaned("pre-dump")
			if backend != "nftables" {
				p.awaitTraffic(prompt, time.Now())
			}
			p.checkShut()
			took := p.awaitOpen(held + patience).Sub(begun)
			t.Logf("a new connection was answered after %s", took)
			if took < held/2 || took > held+late {
				t.Errorf("it should have taken about %s", held)
			}
			// With nftables the peers were quiet. The kernel opens their windows a moment after
			// that, and their next probe, which has backed off to as long again, finds them open.
			p.awaitTraffic(held+patience, time.Now())
			mustRun(t, "", "", netfreeze, "thaw", p.app.netns)
			p.checkUnharmed(time.Now())
		})
	}
}

// TestOrphanStopped kills CRIU and the settler when the images are complete and
// the tasks stopped: the kernel thaws the network, and "netfreeze thaw" lets the
// tasks continue.
func TestOrphanStopped(t *testing.T) {
	// Longer than a dump takes. There is no drain, for which new connections
	// would have to wait as well.
	const ttl = 4 * time.Second
	for _, backend := range []string{"nftables", "iptables-nft", "iptables-legacy"} {
		t.Run(backend, func(t *testing.T) {
			withNetfreeze(t, settings{policy: "hold", backend: backend, ttl: ttl, more: `drain = "0s"`}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, few)
			begun := time.Now()
			p.dumpOrphaned("post-dump")
			p.dumped.awaitStop()
			p.checkShut()
			if s := status(t, p.app.netns); !strings.Contains(s, `"orphaned"`) {
				t.Errorf("while frozen, the status is %s", s)
			}
			took := p.awaitOpen(ttl + patience).Sub(begun)
			t.Logf("a new connection was answered after %s", took)
			if took < ttl/2 || took > ttl+late {
				t.Errorf("it should have taken about %s", ttl)
			}
			p.dumped.awaitStop()
			if s := status(t, p.app.netns); !strings.Contains(s, `"orphaned"`) {
				t.Errorf("when the time to live is over, the status is %s", s)
			}
			mustRun(t, "", "", netfreeze, "thaw", fmt.Sprint(p.dumped.pid))
			p.checkUnharmed(time.Now())
		})
	}
}
