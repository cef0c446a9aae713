// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
)

// longest is longer than a peer of TestHoldWithoutEnd survives without an answer: with
// tcp_retries2 = 5 for 12.6 s (tcp_model_timeout in net/ipv4/tcp_timer.c), idle for 9 s.
const longest = 16 * time.Second

// hundred are a hundred connections: peers that send and that only listen, ask and answer,
// have much in flight, and are idle, so that only keep-alives tell whether we live.
var hundred = []string{
	"pull=15,size=256,interval=20ms", "push=10,interval=20ms", "reqrep=10,interval=20ms",
	"bulk=5,size=4096,interval=20ms", "pull=10,interval=20ms,nap",
}

// endless is one outage of TestHoldWithoutEnd.
type endless struct {
	name     string
	settings settings
	host     bool // in the host's own namespace
	kills    bool // the dumped tree ends, and is restored
	gives    bool // the peers give up
	*pair
}

// TestHoldWithoutEnd holds connections for longer than their peers can bear without an
// answer. Without answers the peers give all of them up; with them every one goes on, and
// not a byte is missing.
func TestHoldWithoutEnd(t *testing.T) {
	all := []*endless{
		{name: "no answers", settings: settings{policy: "hold", more: `answer = "off"`}, gives: true},
		{name: "hold", settings: settings{policy: "hold"}},
		{name: "isolate", settings: settings{policy: "isolate"}},
		{name: "host", settings: settings{policy: "hold"}, host: true},
		{name: "iptables", settings: settings{policy: "hold", backend: "iptables-legacy"}},
		{name: "kill", settings: settings{policy: "kill", more: `answer = "always"`}, kills: true},
	}
	for _, e := range all {
		e.begin(t)
	}
	time.Sleep(longest)
	for _, e := range all {
		e.end(t)
	}
}

// begin dumps a server that has connections.
func (e *endless) begin(t *testing.T) {
	t.Helper()
	withNetfreeze(t, e.settings, plainCRIU{})
	if e.host {
		topo := newTopology(t)
		e.pair = &pair{app: topo.describeHost("app"), peer: topo.newHost("peer")}
		topo.connect(e.app, e.app.netns)
		t.Cleanup(func() { mustRun(t, "", "", "ip", "link", "del", e.app.iface("")) })
	} else {
		e.pair = newHosts(t)
	}
	setSysctls(t, e.peer.netns, []string{"tcp_retries2=5"})
	e.rules = ruleset(t, e.app.netns)
	e.server = serve(t, plainCRIU{}, e.app)
	e.client = connect(t, plainCRIU{}, e.peer, e.app, hundred, "--keep-alive", "1s")
	e.dumped = e.server
	e.awaitTraffic(patience, time.Now())
	e.client.signal(syscall.SIGUSR2) // some are idle from here
	e.packets, e.from = startCapture(t, e.peer.netns, iface), time.Now()
	e.dump()
	switch {
	case e.kills:
		e.dumped.awaitEnd()
	case e.settings.policy == "hold":
		e.dumped.awaitStop()
	}
}

// end lets the connections go on, and checks that they do.
func (e *endless) end(t *testing.T) {
	t.Helper()
	conns := len(e.client.stats.Snapshots())
	if n := e.client.broken(); e.gives {
		if n != conns {
			t.Errorf("%s: the peers have given up %d of %d connections", e.name, n, conns)
		}
		mustRun(t, "", "", netfreeze, "thaw", fmt.Sprint(e.dumped.pid))
		return
	} else if n > 0 {
		t.Fatalf("%s: the peers have given up %d of %d connections after %s", e.name, n, conns, time.Since(e.from))
	}
	e.client.signal(syscall.SIGUSR2)
	thaw := time.Now()
	if e.kills {
		e.dumped.engine.remove(e.dumped)
		if err := e.dumped.engine.restore(e.dumped); err != nil {
			t.Fatalf("%s: restore: %v", e.name, err)
		}
	} else {
		mustRun(t, "", "", netfreeze, "thaw", fmt.Sprint(e.dumped.pid))
	}
	e.checkUnharmed(time.Now())
	t.Logf("%s: %d connections were held for %s", e.name, conns, thaw.Sub(e.from))
	e.checkWindows(t, thaw)
}

// isAnswer tells an answer from what the nudge sends, which echoes no timestamp.
func isAnswer(s *layers.TCP) bool {
	for _, o := range s.Options {
		if o.OptionType == layers.TCPOptionKindTimestamps {
			return len(s.Payload) == 0 && binary.BigEndian.Uint32(o.OptionData[4:]) != 0
		}
	}
	return len(s.Payload) == 0
}

// checkWindows checks that the windows were closed meanwhile, and that no answer has closed
// one again that was opened. An application that is slow to read may.
func (e *endless) checkWindows(t *testing.T, thaw time.Time) {
	t.Helper()
	type peer struct {
		ip   string
		port layers.TCPPort
	}
	closed, open := 0, map[peer]time.Duration{}
	answered := map[peer]uint32{} // what the answers acknowledge, which is always the same
	for at, p := range e.packets.packets() {
		s, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ok || int(s.SrcPort) != e.app.port || at.Before(e.from) {
			continue
		}
		to := peer{p.NetworkLayer().NetworkFlow().Dst().String(), s.DstPort}
		switch since, opened := open[to]; {
		case s.Window == 0 && opened && isAnswer(s) && s.Ack == answered[to]:
			t.Errorf("%s: %s:%d has its window closed %s after the thaw, and opened %s after it", e.name, to.ip, to.port, at.Sub(thaw), since)
		case s.Window == 0 && !opened:
			closed++
			answered[to] = s.Ack
		case s.Window > 0 && at.After(thaw):
			open[to] = at.Sub(thaw)
		}
	}
	if len(open) == 0 || closed < len(open) {
		t.Errorf("%s: %d windows were closed, %d opened again", e.name, closed, len(open))
	}
	t.Logf("%s: %d answers to %d connections", e.name, closed, len(open))
}
