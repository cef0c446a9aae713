// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// netstackProgram turns a program into a peer with gVisor's TCP.
var netstackProgram = filepath.Join(build, "netstack")

// peerKind is a kind of peer, which may react to a nudge in its own way.
type peerKind struct {
	name       string
	peer       []string // sysctls of the peer's namespace, without the prefix net.ipv4.
	app        []string // sysctls of the app's namespace, likewise
	conns      []string // connections, nil for peerConns
	congestion string   // the peer's congestion control, "" for the kernel's default
	gVisor     bool     // the peer uses gVisor's TCP
}

// String returns the kind's name.
func (k peerKind) String() string { return k.name }

// tiny sets the smallest buffers; floods is traffic that closes their windows.
var (
	tiny   = []string{"tcp_rmem=4096 4096 4096", "tcp_wmem=4096 4096 4096"}
	floods = []string{"pull,interval=2ms", "push,interval=2ms", "bulk,size=1024,interval=2ms", "pull,size=16384,interval=2ms"}
)

// pauses is traffic with intervals longer than gVisor's minimum retransmission
// timeout. In gVisor, a program that writes more often while nothing is
// acknowledged postpones the timers until the send buffer is full: for 15 s with
// peerConns, nudged or not.
var pauses = []string{"pull,interval=400ms", "push,interval=2ms", "bulk,size=64,interval=400ms"}

// peerConns are the connections to most kinds of peers.
var peerConns = []string{"pull,interval=2ms", "push,interval=2ms", "bulk,size=1024,interval=2ms"}

var peerKinds = []peerKind{
	{name: "Linux"},
	{name: "no timestamps", peer: []string{"tcp_timestamps=0"}},
	{name: "no SACK", peer: []string{"tcp_sack=0"}},
	// Which the peer collapses into larger ones when it retransmits, see TestCollapsed.
	{name: "small segments", conns: []string{"pull,size=8,interval=1ms", "pull,size=16,interval=1ms"}},
	{name: "tiny windows", peer: tiny, app: tiny, conns: floods},
	{name: "tiny windows, no timestamps", peer: append(tiny, "tcp_timestamps=0"), app: tiny, conns: floods},
	{name: "BBR", congestion: "bbr"},
	{name: "CUBIC", congestion: "cubic"},
	{name: "Reno", congestion: "reno"},
	{name: "gVisor", gVisor: true, conns: pauses},
}

// busyGVisor writes more often than that, which a peer that is quiet may do.
var busyGVisor = peerKind{name: "gVisor, busy", gVisor: true, conns: peerConns}

// TestPeers restores with peers of different kinds: with windows that are shut before the
// freeze, with the nudge alone, and with neither. No peer's first byte comes later for the
// nudge, nor for the windows, and no peer that was quiet repeats anything. A peer that ignores
// ICMP errors sends when its timer expires, which by chance is soon after the thaw or not; for
// such a peer the test checks that no timer runs longer than it may.
func TestPeers(t *testing.T) {
	const length, allowance = 2 * time.Second, 50 * time.Millisecond
	runs := outageRuns(t, 2)
	known := strings.Fields(mustRun(t, "", "", "sysctl", "-n", "net.ipv4.tcp_available_congestion_control"))
	kinds := slices.DeleteFunc(slices.Clone(peerKinds), func(k peerKind) bool {
		absent := k.congestion != "" && !slices.Contains(known, k.congestion)
		if absent {
			t.Logf("%s: left out, the kernel only has %v", k.name, known)
		}
		return absent
	})
	took := map[string]map[string][]time.Duration{} // by mode and kind
	for _, m := range []mode{quietMode, nudgeMode, noneMode} {
		measure := func(o *outages, t *testing.T, k peerKind) { o.measurePeer(t, k, length) }
		cases := kinds
		if m == quietMode {
			cases = append(cases, busyGVisor)
		}
		eachOutage(t, m, runs, cases, measure, func(_ *testing.T, o *outages) { took[m.name] = o.took })
	}
	if busy := took[quietMode.name][busyGVisor.name]; len(busy) > 0 {
		t.Logf("%-28s first byte after %s with quiet peers", busyGVisor, spread(busy))
	}
	for _, k := range kinds {
		quiet, nudge, none := took[quietMode.name][k.name], took[nudgeMode.name][k.name], took[noneMode.name][k.name]
		if len(quiet) == 0 || len(nudge) == 0 || len(none) == 0 {
			continue // not selected, or failed
		}
		t.Logf("%-28s first byte after %s with quiet peers, %s with the nudge, %s without", k.name, spread(quiet), spread(nudge), spread(none))
		if median(quiet) > median(nudge)+allowance {
			t.Errorf("%s: where the peers are quiet the first byte comes later", k.name)
		}
		if !k.gVisor && median(nudge) > median(none)+allowance {
			t.Errorf("%s: with the nudge the first byte comes later", k.name)
		}
	}
}

// outageRuns returns how many times to measure: what outagesVar says, or else
// the usual number.
func outageRuns(t *testing.T, usual int) int {
	t.Helper()
	s := os.Getenv(outagesVar)
	if s == "" {
		return usual
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: not a number of outages, which is at least 1", outagesVar, s)
	}
	return n
}

func median(took []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(took))[len(took)/2]
}

func spread(took []time.Duration) string {
	return fmt.Sprintf("%8s, at most %8s", median(took).Round(100*time.Microsecond), slices.Max(took).Round(100*time.Microsecond))
}

// measurePeer notes, by kind, how long it takes until each connection that the
// peer sends on carries bytes again.
func (o *outages) measurePeer(t *testing.T, k peerKind, length time.Duration) {
	if k.conns == nil {
		k.conns = peerConns
	}
	begin, p := o.dumpPeer(t, k)
	time.Sleep(length - time.Since(begin))
	thaw := o.restorePeer(t, p)
	p.awaitTraffic(2*length+patience, time.Now())
	p.checkAllBytes()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
	if o.mode == quietMode {
		for id, x := range p.exchanges(thaw) {
			if x.resent > 0 {
				t.Errorf("%s, connection %d: %d segments were repeated:\n%s", k, id, x.resent, strings.Join(x.text, "\n"))
			} else if x.open.Sub(thaw) > soon {
				t.Logf("%s, connection %d: it was told to go on %s after the thaw:\n%s\n%s", k, id, x.open.Sub(thaw), strings.Join(x.text, "\n"), o.said(t))
			}
		}
	}
	carried := p.carried(thaw)
	// A timer that doubles runs at most as long again as the outage took, plus
	// the first timeout and what a slow machine adds.
	limit := thaw.Sub(begin) + 400*time.Millisecond
	var all []string
	for i, conn := range k.conns {
		if strings.HasPrefix(conn, "push") {
			continue
		}
		for _, id := range []int{2 * i, 2*i + 1} {
			at, err := carried[uint64(id)].lastOf(toApp)
			if err != nil {
				t.Errorf("%s, connection %d: %v", conn, id, err)
				continue
			}
			if at.Sub(thaw) > limit {
				t.Errorf("%s, connection %d: first byte %s after the thaw, the peer's timer allows at most %s", conn, id, at.Sub(thaw), limit)
			}
			o.note(k.name, at.Sub(thaw))
			all = append(all, at.Sub(thaw).String())
		}
	}
	t.Logf("%s: %s", k.name, strings.Join(all, ", "))
}

// dumpPeer starts a pair, dumps the app and moves it to its new namespace.
func (o *outages) dumpPeer(t *testing.T, k peerKind) (begin time.Time, p *pair) {
	o.criu.Lock()
	defer o.criu.Unlock()
	p = newHosts(t)
	k.prepare(t, p)
	p.start(t, plainCRIU{}, true, k.conns)
	begin = time.Now()
	p.dumpAndMove(func(netns string) {
		freeze(t)(netns)
		setSysctls(t, netns, k.app)
	})
	return begin, p
}

// restorePeer restores the app and returns when its network was thawed.
func (o *outages) restorePeer(t *testing.T, p *pair) time.Time {
	o.criu.Lock()
	defer o.criu.Unlock()
	if err := p.dumped.engine.restore(p.dumped); err != nil {
		t.Fatalf("restore: %v", err)
	}
	time.Sleep(100 * time.Millisecond) // with the machine for this one alone
	return thawed(t, o.log)
}

// prepare configures hosts, on which nothing runs yet, as the kind says.
func (k peerKind) prepare(t *testing.T, p *pair) {
	t.Helper()
	setSysctls(t, p.peer.netns, k.peer)
	setSysctls(t, p.app.netns, k.app)
	if k.congestion != "" {
		// Per route: not every algorithm is allowed as a namespace's default.
		for _, addr := range []netip.Addr{p.app.v4, p.app.v6} {
			p.peer.topo.ip(p.peer.netns, fmt.Sprintf("route add %s dev %s congctl %s", addr, iface, k.congestion))
		}
	}
	if k.gVisor {
		p.via = relay(t, p.peer, p.app)
	}
}

func setSysctls(t *testing.T, netns string, sysctls []string) {
	t.Helper()
	for _, s := range sysctls {
		mustRun(t, netns, "", "sysctl", "-qw", "net.ipv4."+s)
	}
}

// relay gives a host's interface to gVisor's stack, and returns the address at
// which the server of another host can be reached through it.
func relay(t *testing.T, h, to *host) *host {
	t.Helper()
	h.topo.ip(h.netns, "addr flush dev "+iface)
	via := &host{v4: netip.MustParseAddr("127.0.0.1"), v6: netip.IPv6Loopback(), port: to.port}
	cmd := newCommand(context.Background(), h.netns, netstackProgram, "--interface", iface,
		"--address", fmt.Sprintf("%s/24", h.v4), "--address", fmt.Sprintf("%s/64", h.v6),
		"--listen", fmt.Sprintf("%s:%d", via.v4, via.port), "--to", fmt.Sprintf("%s:%d", to.v4, to.port),
		"--listen", fmt.Sprintf("[%s]:%d", via.v6, via.port), "--to", fmt.Sprintf("[%s]:%d", to.v6, to.port))
	cmd.Stderr = os.Stderr
	if err := cmd.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return via
}
