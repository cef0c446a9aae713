//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// failRestore takes the host to a fresh namespace, where a restore fails when
// all is rebuilt and only the tasks have yet to run.
func (p *pair) failRestore() {
	t := p.dumped.t
	t.Helper()
	p.leave(freeze(t))
	fail := script(t, "post-restore", "exit 1")
	if err := p.dumped.engine.restore(p.dumped, scripted(fail, true)...); err == nil {
		t.Fatal("the restore has not failed")
	}
}

// TestRestoreKept restores again where a restore has failed: the freeze was
// kept, and no peer has noticed anything.
func TestRestoreKept(t *testing.T) {
	withSuite(t, settings{policy: "kill", more: `restore-failure = "keep"`}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, few)
	p.failRestore()
	poll(t, back, "the freeze to be kept", func() error {
		// Beside the freeze at the namespace's birth, which it took over.
		if s := mustRun(t, "", "", netfreeze, "status", "-o", "json"); !strings.Contains(s, "kept after a failed restore") {
			return fmt.Errorf("the status is %s", s)
		}
		return nil
	})
	time.Sleep(live)
	if err := p.client.healthy(); err != nil {
		t.Fatalf("the peer has noticed: %v", err)
	}
	p.restore()
	if s := mustRun(t, "", "", netfreeze, "status"); !strings.Contains(s, "nothing is frozen") {
		t.Errorf("records are left:\n%s", s)
	}
}

// TestRestoreThawed has another program use the namespace where a restore has
// failed.
func TestRestoreThawed(t *testing.T) {
	withSuite(t, settings{policy: "kill", more: `restore-failure = "thaw"`}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, few)
	p.failRestore()
	released(t, back, p.app.netns, p.rules)
	another := *p.app
	another.name, another.port = "another", p.app.port+1
	b := both{server: serve(t, plainCRIU{}, &another)}
	b.client = connect(t, plainCRIU{}, p.peer, &another, few)
	b.progress(prompt, time.Now())
	b.settle()
	// Even the port of what was not restored is free.
	if err := within(p.app.netns, func() error {
		l, err := net.Listen("tcp4", fmt.Sprintf("%s:%d", p.app.v4, p.app.port))
		if err == nil {
			err = l.Close()
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}
