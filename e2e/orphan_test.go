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

// late is how much later than said a freeze may end: iptables counts whole
// seconds, and a test does not knock all the time.
const late = 2 * time.Second

// knock opens a connection from the peer to the server, which keeps it until
// the test ends, and fails if nobody answers.
func (p *pair) knock() error {
	const moment = 300 * time.Millisecond
	return within(p.peer.netns, func() error {
		c, err := net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", p.app.v4, p.app.port), moment)
		if err == nil {
			p.dumped.t.Cleanup(func() { _ = c.Close() })
		}
		return err
	})
}

// shut checks that the server's namespace drops what is new.
func (p *pair) shut() {
	p.dumped.t.Helper()
	err := p.knock()
	var silence net.Error
	if !errors.As(err, &silence) || !silence.Timeout() {
		p.dumped.t.Errorf("a new connection should get no answer: %v", err)
	}
}

// opens waits until it lets new connections in, and returns when that was.
func (p *pair) opens(limit time.Duration) time.Time {
	p.dumped.t.Helper()
	poll(p.dumped.t, limit, "answer to a new connection", p.knock)
	return time.Now()
}

// orphan dumps with a script that ends CRIU and the settler at an action, right
// after ours.
func (p *pair) orphan(action string) {
	p.dumped.t.Helper()
	end := script(p.dumped.t, action, "kill -KILL $(pidof netfreeze) $PPID")
	if err := p.dumped.engine.dump(p.dumped, true, scripted(end, true)...); err == nil {
		p.dumped.t.Fatal("the dump has not failed")
	}
}

// TestOrphanPrepared ends CRIU and the settler when all is in place but the
// freeze: only new connections have to wait, and not for long.
func TestOrphanPrepared(t *testing.T) {
	// How long SYNs are held back: the drain, and a margin.
	const held = 100*time.Millisecond + 5*time.Second
	for _, backend := range []string{"nftables", "iptables-nft", "iptables-legacy"} {
		t.Run(backend, func(t *testing.T) {
			withSuite(t, settings{policy: "hold", backend: backend, more: `drain = "100ms"`}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, few)
			begun := time.Now()
			p.orphan("pre-dump")
			p.progress(prompt, time.Now())
			p.shut()
			took := p.opens(held + patience).Sub(begun)
			t.Logf("a new connection was answered after %s", took)
			if took < held/2 || took > held+late {
				t.Errorf("that should be about %s", held)
			}
			mustRun(t, "", "", netfreeze, "thaw", p.app.netns)
			p.unharmed(time.Now())
		})
	}
}

// TestOrphanStopped ends CRIU and the settler when the images are complete and
// the tasks stopped: the kernel gives the network back, and a command the tasks.
func TestOrphanStopped(t *testing.T) {
	// Longer than a dump takes. With a drain new connections would wait for
	// the end of that as well.
	const ttl = 4 * time.Second
	for _, backend := range []string{"nftables", "iptables-nft", "iptables-legacy"} {
		t.Run(backend, func(t *testing.T) {
			withSuite(t, settings{policy: "hold", backend: backend, ttl: ttl, more: `drain = "0s"`}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, few)
			begun := time.Now()
			p.orphan("post-dump")
			p.dumped.stopped()
			p.shut()
			if s := status(t, p.app.netns); !strings.Contains(s, `"orphaned"`) {
				t.Errorf("while frozen, the status is %s", s)
			}
			took := p.opens(ttl + patience).Sub(begun)
			t.Logf("a new connection was answered after %s", took)
			if took < ttl/2 || took > ttl+late {
				t.Errorf("that should be about %s", ttl)
			}
			p.dumped.stopped()
			if s := status(t, p.app.netns); !strings.Contains(s, `"orphaned"`) {
				t.Errorf("when the time to live is over, the status is %s", s)
			}
			mustRun(t, "", "", netfreeze, "thaw", fmt.Sprint(p.dumped.pid))
			p.unharmed(time.Now())
		})
	}
}
