// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestHostNetns dumps a task in the host's own namespace: only its connections
// are frozen. Those of another program carry traffic all the time.
func TestHostNetns(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables-nft", "iptables-legacy"} {
		t.Run(backend, func(t *testing.T) {
			withNetfreeze(t, settings{policy: "kill", backend: backend})
			topo := newTopology(t)
			app, peer := topo.describeHost("app"), topo.newHost("peer")
			topo.connect(app, app.netns)
			t.Cleanup(func() { mustRun(t, "", "", "ip", "link", "del", app.iface("")) })
			p := &pair{app: app, peer: peer, rules: ruleset(t, "")}
			p.server = serve(t, plainCRIU{}, app)
			p.client = connect(t, plainCRIU{}, peer, app, few)
			p.dumped = p.server
			neighbour := *app
			neighbour.port++
			var other endpoints
			other.server = serve(t, plainCRIU{}, &neighbour)
			other.client = connect(t, plainCRIU{}, peer, &neighbour, few)
			p.awaitTraffic(patience, time.Now())
			other.awaitTraffic(patience, time.Now())
			p.packets = startCapture(t, peer.netns, iface)
			p.from = time.Now()

			p.dump()
			p.dumped.awaitEnd()
			p.dumped.engine.remove(p.dumped)
			other.awaitTraffic(prompt, time.Now())
			time.Sleep(live)
			other.awaitTraffic(prompt, time.Now())
			p.restore()
			other.checkAllBytes()
			for _, s := range other.client.stats.Snapshots() {
				if silence := time.Duration(s.Silence); s.Received > 0 && silence > live/2 {
					t.Errorf("connection %d of the other program was silent for %s", s.ID, silence)
				}
			}
		})
	}
}

// TestHostRefused asks, in every possible way, to freeze or kill the host's
// whole namespace: every attempt is refused.
func TestHostRefused(t *testing.T) {
	withNetfreeze(t, settings{policy: "hold"})
	before := ruleset(t, "")
	for _, target := range []string{"1", "/proc/1/ns/net", "/proc/self/ns/net", "/proc/thread-self/ns/net"} {
		for _, command := range []string{"freeze", "kill"} {
			if out, err := runIn("", "", netfreeze, command, target); err == nil {
				t.Errorf("netfreeze %s %s was not refused: %s", command, target, out)
			}
		}
	}
	if now := ruleset(t, ""); now != before {
		t.Errorf("the host's rules have changed to\n%s", now)
	}
}
