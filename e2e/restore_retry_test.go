// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// failRestore moves the host to a new namespace, where a restore then fails at
// the last moment: everything has been rebuilt, but no task runs yet.
func (p *pair) failRestore() {
	t := p.dumped.t
	t.Helper()
	p.dumpAndMove(freeze(t))
	fail := script(t, "post-restore", "exit 1")
	if err := p.dumped.engine.restore(p.dumped, scripted(fail, true)...); err == nil {
		t.Fatal("the restore has not failed")
	}
}

// TestRestoreKept restores again after a restore has failed in the same
// namespace: the freeze was kept, and the peer has noticed nothing.
func TestRestoreKept(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill", more: `restore-failure = "keep"`}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, few)
	p.failRestore()
	poll(t, back, "the freeze to be kept", func() error {
		// Asked of all entries: the namespace also has that of the freeze at its
		// birth, which the restore took over.
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

// TestRestoreThawed has another program use the namespace in which a restore has
// failed.
func TestRestoreThawed(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill", more: `restore-failure = "thaw"`}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, few)
	p.failRestore()
	awaitRelease(t, back, p.app.netns, p.rules)
	another := *p.app
	another.name, another.port = "another", p.app.port+1
	ends := endpoints{server: serve(t, plainCRIU{}, &another)}
	ends.client = connect(t, plainCRIU{}, p.peer, &another, few)
	ends.awaitTraffic(prompt, time.Now())
	ends.checkAllBytes()
	// Even the port of the server that was not restored is free.
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
