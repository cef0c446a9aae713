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

// netstackProgram makes a peer of gVisor's TCP.
var netstackProgram = filepath.Join(build, "netstack")

// peerKind is a kind of peer that could take a nudge differently.
type peerKind struct {
	name       string
	peer       []string // sysctls of the peer's namespace, without net.ipv4.
	app        []string // and of the app's
	conns      []string // instead of peerConns
	congestion string   // the peer's algorithm for that, "" for the kernel's default
	gVisor     bool     // its TCP is gVisor's
}

// String names the kind.
func (k peerKind) String() string { return k.name }

// tiny are the smallest buffers; floods closes their windows.
var (
	tiny   = []string{"tcp_rmem=4096 4096 4096", "tcp_wmem=4096 4096 4096"}
	floods = []string{"pull,interval=2ms", "push,interval=2ms", "bulk,size=1024,interval=2ms", "pull,size=16384,interval=2ms"}
)

// pauses are longer than gVisor's least timeout. Who writes more often there,
// while nothing is acknowledged, puts the timers off until the send buffer is
// full: 15 seconds for peerConns, nudged or not.
var pauses = []string{"pull,interval=400ms", "push,interval=2ms", "bulk,size=64,interval=400ms"}

// peerConns are the connections to a peer.
var peerConns = []string{"pull,interval=2ms", "push,interval=2ms", "bulk,size=1024,interval=2ms"}

var peerKinds = []peerKind{
	{name: "Linux"},
	{name: "no timestamps", peer: []string{"tcp_timestamps=0"}},
	{name: "no SACK", peer: []string{"tcp_sack=0"}},
	{name: "tiny windows", peer: tiny, app: tiny, conns: floods},
	{name: "tiny windows, no timestamps", peer: append(tiny, "tcp_timestamps=0"), app: tiny, conns: floods},
	{name: "BBR", congestion: "bbr"},
	{name: "CUBIC", congestion: "cubic"},
	{name: "Reno", congestion: "reno"},
	{name: "gVisor", gVisor: true, conns: pauses},
}

// TestPeers restores next to peers of different kinds, with the nudge and
// without: with it no peer's first byte comes later. One that heeds no ICMP
// error sends when its timer says; by chance that is soon after the thaw, or
// not, so what holds is that no timer runs longer than it may.
func TestPeers(t *testing.T) {
	const length, allowance = 2 * time.Second, 50 * time.Millisecond
	runs := outageRuns(t, 2)
	known := strings.Fields(mustRun(t, "", "", "sysctl", "-n", "net.ipv4.tcp_available_congestion_control"))
	kinds := slices.DeleteFunc(slices.Clone(peerKinds), func(k peerKind) bool {
		absent := k.congestion != "" && !slices.Contains(known, k.congestion)
		if absent {
			t.Logf("%s: the kernel has only %v", k.name, known)
		}
		return absent
	})
	took := map[string]map[string][]time.Duration{} // by resume and kind
	for _, resume := range []string{"nudge", "none"} {
		measure := func(o *outages, t *testing.T, k peerKind) { o.measurePeer(t, k, length) }
		eachOutage(t, resume, runs, kinds, measure, func(_ *testing.T, o *outages) { took[resume] = o.took })
	}
	for _, k := range kinds {
		nudge, none := took["nudge"][k.name], took["none"][k.name]
		if len(nudge) == 0 || len(none) == 0 {
			continue // not selected, or failed
		}
		t.Logf("%-28s first byte after %s with the nudge, %s without", k.name, spread(nudge), spread(none))
		if !k.gVisor && median(nudge) > median(none)+allowance {
			t.Errorf("%s: the nudge makes it later", k.name)
		}
	}
}

// outageRuns returns how often to measure, by outagesVar or as usual.
func outageRuns(t *testing.T, usual int) int {
	t.Helper()
	s := os.Getenv(outagesVar)
	if s == "" {
		return usual
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is no number of outages", outagesVar, s)
	}
	return n
}

func median(took []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(took))[len(took)/2]
}

func spread(took []time.Duration) string {
	return fmt.Sprintf("%8s, at most %8s", median(took).Round(100*time.Microsecond), slices.Max(took).Round(100*time.Microsecond))
}

// measurePeer notes, by kind, when each connection that the peer sends on
// carries bytes again.
func (o *outages) measurePeer(t *testing.T, k peerKind, length time.Duration) {
	if k.conns == nil {
		k.conns = peerConns
	}
	begin, p := o.leavePeer(t, k)
	time.Sleep(length - time.Since(begin))
	thaw := o.comeBackToPeer(t, p)
	p.progress(2*length+patience, time.Now())
	p.settle()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
	carried := p.carried(thaw)
	// A timer that doubles has at most as long to run as the outage took; a
	// first timeout and a slow machine come to that.
	limit := thaw.Sub(begin) + 400*time.Millisecond
	var all []string
	for i, conn := range k.conns {
		if strings.HasPrefix(conn, "push") {
			continue
		}
		for _, id := range []int{2 * i, 2*i + 1} {
			at, err := carried[uint64(id)].both(toApp)
			if err != nil {
				t.Errorf("%s, connection %d: %v", conn, id, err)
				continue
			}
			if at.Sub(thaw) > limit {
				t.Errorf("%s, connection %d: first byte %s after the thaw, a timer allows %s", conn, id, at.Sub(thaw), limit)
			}
			o.note(k.name, at.Sub(thaw))
			all = append(all, at.Sub(thaw).String())
		}
	}
	t.Logf("%s: %s", k.name, strings.Join(all, ", "))
}

// leavePeer starts a pair and dumps the app, which has its new namespace then.
func (o *outages) leavePeer(t *testing.T, k peerKind) (begin time.Time, p *pair) {
	o.criu.Lock()
	defer o.criu.Unlock()
	p = newHosts(t)
	k.prepare(t, p)
	p.start(t, plainCRIU{}, true, k.conns)
	begin = time.Now()
	p.leave(func(netns string) {
		freeze(t)(netns)
		setSysctls(t, netns, k.app)
	})
	return begin, p
}

// comeBackToPeer restores the app and returns when its network was thawed.
func (o *outages) comeBackToPeer(t *testing.T, p *pair) time.Time {
	o.criu.Lock()
	defer o.criu.Unlock()
	if err := p.dumped.engine.restore(p.dumped); err != nil {
		t.Fatalf("restore: %v", err)
	}
	time.Sleep(100 * time.Millisecond) // with the machine for this one alone
	return thawed(t, o.log)
}

// prepare makes hosts on which nothing runs yet what the kind says.
func (k peerKind) prepare(t *testing.T, p *pair) {
	t.Helper()
	setSysctls(t, p.peer.netns, k.peer)
	setSysctls(t, p.app.netns, k.app)
	if k.congestion != "" {
		// By the route: a namespace may not choose each algorithm as its default.
		for _, addr := range []netip.Addr{p.app.v4, p.app.v6} {
			p.peer.w.ip(p.peer.netns, fmt.Sprintf("route add %s dev %s congctl %s", addr, iface, k.congestion))
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

// relay gives a host's interface to gVisor's stack, and returns where the
// server of another host can be found through it.
func relay(t *testing.T, h, to *host) *host {
	t.Helper()
	h.w.ip(h.netns, "addr flush dev "+iface)
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
