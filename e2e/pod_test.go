// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// pod is two servers in one network namespace, and a client for each on the peer.
type pod struct {
	app, peer *host
	a, b      endpoints
	packets   *capture
	rules     string
	from      time.Time
}

func newPod(t *testing.T) *pod {
	t.Helper()
	topo := newTopology(t)
	return newPodOn(t, topo.newHost("app"), topo.newHost("peer"))
}

// newPodOn starts the servers and clients of a pod on two hosts.
func newPodOn(t *testing.T, app, peer *host) *pod {
	t.Helper()
	p := &pod{app: app, peer: peer}
	p.rules = ruleset(t, p.app.netns)
	second := *p.app
	second.port++
	second.name = "second"
	runc := runtimeEngine("runc")
	p.a.server = serve(t, runc, p.app)
	p.a.client = connect(t, plainCRIU{}, p.peer, p.app, few)
	p.b.server = serve(t, runc, &second)
	p.b.client = connect(t, plainCRIU{}, p.peer, &second, few)
	p.a.awaitTraffic(patience, time.Now())
	p.b.awaitTraffic(patience, time.Now())
	p.packets = startCapture(t, p.peer.netns, iface)
	p.from = time.Now()
	return p
}

// dump dumps one of the servers.
func (p *pod) dump(t *testing.T, k *task) {
	t.Helper()
	if err := k.engine.dump(k, true); err != nil {
		t.Fatalf("dump: %v", err)
	}
}

// TestPod dumps both containers of a pod, which share a namespace, and restores
// one after the other. The connections of the container that is not restored yet
// stay silent.
func TestPod(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("runc"))
	p := newPod(t)
	for _, ends := range []endpoints{p.a, p.b} {
		p.dump(t, ends.server)
		ends.server.awaitEnd()
		ends.server.engine.remove(ends.server)
	}
	for i, ends := range []endpoints{p.a, p.b} {
		if err := ends.server.engine.restore(ends.server); err != nil {
			t.Fatalf("restore: %v", err)
		}
		ends.awaitTraffic(patience, time.Now())
		if i == 0 {
			time.Sleep(live) // the other container's peer keeps retransmitting
			if err := p.b.client.healthy(); err != nil {
				t.Errorf("the other container was harmed: %v", err)
			}
		}
	}
	p.a.checkAllBytes()
	p.b.checkAllBytes()
	awaitRelease(t, patience, p.app.netns, p.rules)
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
}

// TestPodHeld holds both containers of a pod. One of them cannot be thawed alone,
// and the attempt changes nothing; both together can.
func TestPodHeld(t *testing.T) {
	withNetfreeze(t, settings{policy: "hold"}, runtimeEngine("runc"))
	p := newPod(t)
	p.dump(t, p.a.server)
	p.dump(t, p.b.server)
	out, err := runIn("", "", netfreeze, "thaw", p.a.server.id)
	if err == nil || !strings.Contains(out, "thaw 'net:[") {
		t.Errorf("thawing one of two containers: %v, %s", err, out)
	}
	p.a.server.awaitStop()
	// A container that somebody else ends is silent all the same.
	p.b.server.engine.remove(p.b.server)
	if left := mustRun(t, p.app.netns, "", "ss", "-Htan", "state", "fin-wait-1"); left != "" {
		t.Errorf("sockets are left:\n%s", left)
	}
	mustRun(t, "", "", netfreeze, "thaw", p.app.netns)
	p.a.awaitTraffic(patience, time.Now())
	awaitRelease(t, patience, p.app.netns, p.rules)
}

// TestPodRun dumps one container with policy run while the connections of the
// other wait for a restore: the network comes back for the first, and the
// connections of the other stay silent.
func TestPodRun(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill", more: "[[container]]\nid = \"*-second-*\"\npolicy = \"run\"\n"}, runtimeEngine("runc"))
	p := newPod(t)
	p.dump(t, p.a.server)
	p.a.server.awaitEnd()
	p.dump(t, p.b.server)
	p.b.awaitTraffic(patience, time.Now())
	time.Sleep(live)
	p.b.awaitTraffic(patience, time.Now())
	p.a.server.engine.remove(p.a.server)
	if err := p.a.server.engine.restore(p.a.server); err != nil {
		t.Fatalf("restore: %v", err)
	}
	p.a.awaitTraffic(patience, time.Now())
	p.a.checkAllBytes()
	p.b.checkAllBytes()
	awaitRelease(t, patience, p.app.netns, p.rules)
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
}

// TestPodMoved moves both containers of a pod into a new namespace, which is frozen at
// its birth. It has to stay so until both are restored: after the first one's thaw the
// kernel would reset the connections of the other.
func TestPodMoved(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("runc"))
	for _, told := range []bool{true, false} {
		t.Run(map[bool]string{true: "two are expected", false: "one is expected"}[told], func(t *testing.T) {
			topo := newTopology(t)
			n := newCNI(topo, "1.0.0", netfreezePlugin(""), bridgePlugin)
			n.pod = fmt.Sprintf("shop/db-%d", topo.n)
			p := newPodOn(t, n.newHost("app"), topo.newHost("peer"))
			for _, ends := range []endpoints{p.a, p.b} {
				p.dump(t, ends.server)
				ends.server.awaitEnd()
				ends.server.engine.remove(ends.server)
			}
			args := []string{"--pod", n.pod}
			if told {
				args = append(args, "--containers", "2")
			}
			expect(t, args...)
			n.move(p.app)
			p.b.server.host.netns = p.app.netns
			if err := p.a.server.engine.restore(p.a.server); err != nil {
				t.Fatal(err)
			}
			time.Sleep(live) // the peers keep retransmitting
			if !told {
				if seen := p.packets.since(p.from); seen.rst == 0 {
					t.Error("no RST was captured: nothing was tested")
				}
				return
			}
			if s := status(t, p.app.netns); !strings.Contains(s, "waits for 1 of 2 restores") {
				t.Errorf("status says %s", s)
			}
			if err := p.b.server.engine.restore(p.b.server); err != nil {
				t.Fatal(err)
			}
			thawed := time.Now()
			p.a.awaitTraffic(bothWays, thawed)
			p.b.awaitTraffic(bothWays, thawed)
			p.a.checkAllBytes()
			p.b.checkAllBytes()
			awaitRelease(t, patience, p.app.netns, p.rules)
			if err := p.packets.since(p.from).stray(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFormerNamespace leaves the record of a former namespace that had the same
// inode number, and a record that cannot be read: neither affects a dump.
func TestFormerNamespace(t *testing.T) {
	withNetfreeze(t, settings{policy: "run"}, plainCRIU{})
	p := newPair(t, plainCRIU{}, true, few)
	var ino string
	if s := mustRun(t, "", "", "stat", "-Lc", "%i", netnsPath(p.app.netns)); s != "" {
		ino = strings.TrimSpace(s)
	}
	dev := strings.TrimSpace(mustRun(t, "", "", "stat", "-Lc", "%d", netnsPath(p.app.netns)))
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	stale := `{"id":"1@1","op":"dump","phase":"ended","scope":"netns","netns":{"Dev":` + dev + `,"Ino":` + ino +
		`},"cookie":1,"backend":"nftables","since":"2020-01-01T00:00:00Z","until":"2999-01-01T00:00:00Z"}`
	for name, text := range map[string]string{"1@1.json": stale, "2@2.json": `{"id":`} {
		path := stateDir + "/" + name
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(path) })
	}
	p.dump()
	p.awaitTraffic(patience, time.Now())
	if now := ruleset(t, p.app.netns); now != p.rules {
		t.Errorf("the rules are\n%s", now)
	}
	if _, err := os.Stat(stateDir + "/1@1.json"); err == nil {
		t.Error("the stale record is still there")
	}
}
