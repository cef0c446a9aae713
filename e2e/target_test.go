//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestTarget names held containers by the beginnings of their ids: as much as
// tells one from the other thaws or kills it, less is refused and changes nothing.
func TestTarget(t *testing.T) {
	runc := runtimeEngine("runc")
	withSuite(t, settings{policy: "hold"}, runc)
	w := newWorld(t)
	peer := w.newHost("peer")
	var held [2]both
	for i, name := range []string{"web1", "web2"} {
		app := w.newHost(name)
		held[i].server = serve(t, runc, app)
		held[i].client = connect(t, plainCRIU{}, peer, app, few)
		held[i].progress(patience, time.Now())
	}
	first, second := held[0].server, held[1].server
	for _, k := range []*task{first, second} {
		if err := runc.dump(k, true); err != nil {
			t.Fatalf("dump: %v", err)
		}
		k.stopped()
	}
	unchanged := func(k *task) {
		t.Helper()
		k.stopped()
		if s := status(t, k.host.netns); !strings.Contains(s, `"held"`) || !strings.Contains(s, `"frozen": true`) {
			t.Errorf("%s is held no more: %s", k.id, s)
		}
	}
	// Hosts' names are names of namespaces too: an id's beginning goes further.
	common := strings.TrimSuffix(first.host.netns, "1")
	for _, command := range []string{"thaw", "kill"} {
		out, err := runIn("", "", netfreeze, command, common)
		if err == nil || !strings.Contains(out, first.id) || !strings.Contains(out, second.id) || !strings.Contains(out, "give more of the id") {
			t.Errorf("%s %s, which fits two: %v, %s", command, common, err, out)
		}
		if out, err := runIn("", "", netfreeze, command, first.id+"x"); err == nil || !strings.Contains(out, first.id+"x") {
			t.Errorf("%s of nobody: %v, %s", command, err, out)
		}
		unchanged(first)
		unchanged(second)
	}
	mustRun(t, "", "", netfreeze, "kill", first.host.netns+"-r")
	first.gone()
	unchanged(second)
	if s := status(t, first.host.netns); !strings.Contains(s, `"frozen": true`) {
		t.Errorf("the killed one's namespace is frozen no more: %s", s)
	}
	mustRun(t, "", "", netfreeze, "thaw", second.host.netns+"-r")
	held[1].promptly(time.Now())
	held[1].settle()
	if err := held[0].client.healthy(); err != nil {
		t.Errorf("the killed one's peer has noticed: %v", err)
	}
	mustRun(t, "", "", netfreeze, "thaw", first.host.netns)
}
