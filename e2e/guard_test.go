// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// restoresVar is the environment variable that says how many times TestGuard
// restores. Before each restore the address is live for a time between 0 and
// longestLive.
const (
	restoresVar = "NETFREEZE_RESTORES"
	longestLive = 5 * time.Second
)

func restores(t *testing.T) int {
	t.Helper()
	if s := os.Getenv(restoresVar); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 2 {
			t.Fatalf("%s=%s: not a number of restores, which is at least 2", restoresVar, s)
		}
		return n
	}
	return 10
}

// everyMillisecond is traffic of a peer that sends all the time, and the same in
// the other direction.
var everyMillisecond = []string{"pull=2", "push", "reqrep"}

// newCNIPair is like newPair, but CNI plugins connect the server's host.
func newCNIPair(t *testing.T, e engine, n *cniNet) *pair {
	t.Helper()
	p := &pair{app: n.newHost("app"), peer: n.topo.newHost("peer")}
	p.server = serve(t, e, p.app)
	p.client = connect(t, plainCRIU{}, p.peer, p.app, everyMillisecond)
	p.dumped = p.server
	p.awaitTraffic(patience, time.Now())
	p.packets = startCapture(t, p.peer.netns, iface)
	p.from = time.Now()
	return p
}

// TestGuard restores many times in a row, into namespaces that real CNI plugins
// set up some time before CRIU starts, with a peer that sends every millisecond.
// Every connection survives every restore, and the peer sees no RST.
func TestGuard(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("runc"))
	for name, plugin := range map[string]string{"bridge": bridgePlugin, "macvlan": macvlanPlugin} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topo := newTopology(t)
			n := newCNI(topo, "1.0.0", netfreezePlugin(""), plugin)
			n.pod = fmt.Sprintf("shop/%s-0", name)
			p := newCNIPair(t, runtimeEngine("runc"), n)
			if name == "bridge" {
				expect(t, "--pod", n.pod)
			} else {
				expect(t, "--address", p.app.v4.String())
			}
			count := restores(t)
			var slowest time.Duration
			for i := range count {
				wait := longestLive * time.Duration(i) / time.Duration(count-1)
				p.dump()
				p.dumped.awaitEnd()
				p.dumped.engine.remove(p.dumped)
				n.move(p.app)
				time.Sleep(wait)
				if err := p.dumped.engine.restore(p.dumped); err != nil {
					t.Fatalf("restore %d, with the address live for %s: %v", i, wait, err)
				}
				restored := time.Now()
				p.awaitTraffic(2*patience, restored)
				slowest = max(slowest, time.Since(restored))
			}
			p.checkAllBytes()
			seen := p.packets.since(p.from)
			if err := seen.stray(); err != nil {
				t.Error(err)
			}
			t.Logf("%d of %d restores survived, %d TCP segments, %d RST at the peer; traffic on all %d connections after at most %s",
				count, count, seen.tcp, seen.rst, len(p.client.stats.Snapshots()), slowest.Round(time.Millisecond))
		})
	}
}

// TestWithoutGuard does the same once, without announcing the restore: the
// kernel answers the peer before CRIU starts.
func TestWithoutGuard(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("runc"))
	for name, plugin := range map[string]string{"bridge": bridgePlugin, "macvlan": macvlanPlugin} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newCNI(newTopology(t), "1.0.0", netfreezePlugin(""), plugin)
			p := newCNIPair(t, runtimeEngine("runc"), n)
			p.dump()
			p.dumped.awaitEnd()
			p.dumped.engine.remove(p.dumped)
			n.move(p.app)
			time.Sleep(live)
			_ = p.dumped.engine.restore(p.dumped) // the connections are lost either way
			poll(t, patience, "the peer to lose a connection", func() error {
				if p.client.broken() == 0 {
					return fmt.Errorf("none has been lost")
				}
				return nil
			})
			if n := p.packets.since(p.from); n.rst == 0 {
				t.Error("no RST was captured")
			} else {
				t.Logf("%d RST at the peer, %d connections lost", n.rst, p.client.broken())
			}
		})
	}
}

// TestGuardNode restores into a namespace that nobody freezes before CRIU starts,
// on the same bridge as its peer. A guard in the node's namespace, the one with
// the bridge, drops the resets.
func TestGuardNode(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("runc"))
	p := newPair(t, runtimeEngine("runc"), true, everyMillisecond)
	guard(t, p.app.topo.switchNetns, p.app)
	p.dumpAndMove(func(string) {})
	from := startCapture(t, p.app.netns, iface)
	begin := time.Now()
	time.Sleep(live)
	if err := p.dumped.engine.restore(p.dumped); err != nil {
		t.Fatal(err)
	}
	p.awaitTraffic(2*patience, time.Now())
	p.checkAllBytes()
	if seen := from.since(begin); seen.rst == 0 {
		t.Error("the namespace sent no RST, so the guard was not tested")
	} else {
		t.Logf("%d RST left the namespace", seen.rst)
	}
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
}
