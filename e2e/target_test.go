// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestTarget names held containers by the beginnings of their ids: a prefix that
// fits one container thaws or kills it; one that fits two is refused and changes
// nothing.
func TestTarget(t *testing.T) {
	runc := runtimeEngine("runc")
	withNetfreeze(t, settings{policy: "hold"}, runc)
	topo := newTopology(t)
	peer := topo.newHost("peer")
	var held [2]endpoints
	for i, name := range []string{"web1", "web2"} {
		app := topo.newHost(name)
		held[i].server = serve(t, runc, app)
		held[i].client = connect(t, plainCRIU{}, peer, app, few)
		held[i].awaitTraffic(patience, time.Now())
	}
	first, second := held[0].server, held[1].server
	for _, k := range []*task{first, second} {
		if err := runc.dump(k, true); err != nil {
			t.Fatalf("dump: %v", err)
		}
		k.awaitStop()
	}
	unchanged := func(k *task) {
		t.Helper()
		k.awaitStop()
		if s := status(t, k.host.netns); !strings.Contains(s, `"held"`) || !strings.Contains(s, `"frozen": true`) {
			t.Errorf("%s is no longer held: %s", k.id, s)
		}
	}
	// A host's name is also that of its namespace, so that only a longer prefix
	// stands for the container.
	common := strings.TrimSuffix(first.host.netns, "1")
	for _, command := range []string{"thaw", "kill"} {
		out, err := runIn("", "", netfreeze, command, common)
		if err == nil || !strings.Contains(out, first.id) || !strings.Contains(out, second.id) || !strings.Contains(out, "give more of the id") {
			t.Errorf("%s %s, which fits two containers: %v, %s", command, common, err, out)
		}
		if out, err := runIn("", "", netfreeze, command, first.id+"x"); err == nil || !strings.Contains(out, first.id+"x") {
			t.Errorf("%s of a container that does not exist: %v, %s", command, err, out)
		}
		unchanged(first)
		unchanged(second)
	}
	mustRun(t, "", "", netfreeze, "kill", first.host.netns+"-r")
	first.awaitEnd()
	unchanged(second)
	if s := status(t, first.host.netns); !strings.Contains(s, `"frozen": true`) {
		t.Errorf("the namespace of the killed container is no longer frozen: %s", s)
	}
	mustRun(t, "", "", netfreeze, "thaw", second.host.netns+"-r")
	held[1].awaitResumption(time.Now())
	held[1].checkAllBytes()
	if err := held[0].client.healthy(); err != nil {
		t.Errorf("the killed container's peer has noticed: %v", err)
	}
	mustRun(t, "", "", netfreeze, "thaw", first.host.netns)
}
