// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Where criu-netfreeze is installed, and where it keeps its state.
const (
	netfreeze = "/usr/local/bin/netfreeze"
	hook      = "/usr/local/libexec/criu-netfreeze/netfreeze-hook"
	criuDir   = "/etc/criu"
	stateDir  = "/run/criu-netfreeze"
)

// prompt is the time within which an undisturbed connection carries traffic.
const prompt = time.Second

// settings is the configuration that a test asks for.
type settings struct {
	policy  string
	backend string        // "" for the default
	ttl     time.Duration // 0 for the default
	more    string        // additional lines of netfreeze.toml
	log     string        // path of netfreeze's log file, "" for none
	install []string      // options of "netfreeze install"
}

// withNetfreeze configures criu-netfreeze for a test and its subtests, which may
// run in parallel, and configures CRIU to call it: in the configuration files of
// the given engines, or of all engines if none is given. (Every CRIU reads plain
// criu's file in addition to that of the runtime that starts it; if both files
// are there, the hook runs twice.)
func withNetfreeze(t *testing.T, s settings, of ...engine) {
	t.Helper()
	withoutNetfreeze(t)
	lines := []string{fmt.Sprintf("policy = %q", s.policy)}
	if s.backend != "" {
		lines = append(lines, fmt.Sprintf("backend = %q", s.backend))
	}
	if s.ttl != 0 {
		lines = append(lines, fmt.Sprintf("ttl = %q", s.ttl))
	}
	config := strings.Join(append(lines, s.more), "\n") + "\n\n[log]\nlevel = \"debug\"\n"
	if s.log != "" {
		config += fmt.Sprintf("file = %q\n", s.log)
	}
	if err := os.WriteFile(filepath.Join(criuDir, "netfreeze.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if of == nil {
		of = engines
	}
	// crun falls back to runc.conf, and "netfreeze install" gives it a file of
	// its own only where there is no runc.conf yet: hence crun first.
	for _, e := range []engine{runtimeEngine("crun"), runtimeEngine("runc"), plainCRIU{}} {
		if slices.Contains(of, e) {
			mustRun(t, "", "", append([]string{netfreeze, "install", "--runtime", configOf(e)}, s.install...)...)
		}
	}
	t.Cleanup(func() { mustRun(t, "", "", netfreeze, "uninstall", "--force") })
}

// configOf returns the name of an engine's CRIU configuration file, without the
// extension.
func configOf(e engine) string {
	if e == (plainCRIU{}) {
		return "default"
	}
	return e.String()
}

// withoutNetfreeze removes every configuration file, so that CRIU runs as if
// criu-netfreeze were not installed.
func withoutNetfreeze(t *testing.T) {
	t.Helper()
	for _, name := range []string{"default.conf", "runc.conf", "crun.conf", "netfreeze.toml"} {
		if err := os.Remove(filepath.Join(criuDir, name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}

// What iptables-nft leaves behind, whether we or CRIU's own lock used it: empty
// chains, and tables that have no other chains.
var (
	emptyChain = regexp.MustCompile(`\tchain [A-Z]+ \{\n\t\ttype filter hook [a-z]+ priority [a-z]+; policy accept;\n\t\}\n\n?`)
	emptyTable = regexp.MustCompile(`table ip6? (filter|raw) \{\n\}\n`)
)

// ruleset returns, as text, all the rules that can drop a packet in a namespace.
func ruleset(t *testing.T, netns string) string {
	t.Helper()
	nft := mustRun(t, netns, "", "nft", "list", "ruleset")
	nft = emptyTable.ReplaceAllString(emptyChain.ReplaceAllString(nft, ""), "")
	var all strings.Builder
	all.WriteString(nft)
	for _, tool := range []string{"iptables-legacy", "ip6tables-legacy"} {
		for _, table := range []string{"raw", "filter"} {
			all.WriteString(mustRun(t, netns, "", tool, "--wait", "-t", table, "-S"))
		}
	}
	return all.String()
}

// status returns the entry of "netfreeze status" for a namespace, "" if there is
// none.
func status(t *testing.T, netns string) string {
	t.Helper()
	out := mustRun(t, "", "", netfreeze, "status", "-o", "json")
	var entries []json.RawMessage
	if err := json.Unmarshal([]byte(out), &entries); err != nil {
		t.Fatalf("netfreeze status -o json did not print a JSON list: %v: %s", err, out)
	}
	var ns syscall.Stat_t
	if err := syscall.Stat(netnsPath(netns), &ns); err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.Contains(string(entry), fmt.Sprint(ns.Ino)) {
			return string(entry)
		}
	}
	return ""
}

// freeze returns a function that freezes a namespace, to be called when the
// namespace has just been created.
func freeze(t *testing.T) func(netns string) {
	return func(netns string) {
		t.Helper()
		mustRun(t, "", "", netfreeze, "freeze", netns)
	}
}

// awaitResumption waits for traffic on every connection after a thaw, and logs
// how long it took.
func (ends endpoints) awaitResumption(after time.Time) {
	t := ends.client.t
	t.Helper()
	ends.awaitTraffic(patience, after)
	t.Logf("every connection carried traffic after %s", time.Since(after))
}

// awaitRelease waits until nothing of ours is left in a namespace: its rules are
// the same as before, and "netfreeze status" does not list it.
func awaitRelease(t *testing.T, limit time.Duration, netns, before string) {
	t.Helper()
	poll(t, limit, "release of "+netns, func() error {
		if now := ruleset(t, netns); now != before {
			return fmt.Errorf("its rules are\n%s\nand were before\n%s", now, before)
		}
		if s := status(t, netns); s != "" {
			return fmt.Errorf("its status is %s", s)
		}
		return nil
	})
}

// awaitEnd waits until criu-netfreeze has ended the task.
func (k *task) awaitEnd() {
	k.t.Helper()
	poll(k.t, patience, "silent end of "+k.id, func() error {
		if alive(k.pid) {
			return fmt.Errorf("process %d is still alive", k.pid)
		}
		return nil
	})
}

// awaitGone is awaitEnd for a task that is restored at once, and whose pid must be free for
// that: on a busy machine whoever reaps it may be late.
func (k *task) awaitGone() {
	k.t.Helper()
	poll(k.t, patience, "end of "+k.id, func() error {
		if state, err := processState(k.pid); err == nil {
			return fmt.Errorf("process %d is there, in state %c", k.pid, state)
		}
		return nil
	})
}

// pair is two traffic programs on two new hosts. One of them will be dumped;
// the other, the peer, is a plain process that keeps running throughout.
type pair struct {
	endpoints
	dumped    *task
	app, peer *host
	via       *host // where the client finds the server, if not on its host: a relay
	packets   *capture
	rules     string    // in the app's namespace, before the dump
	from      time.Time // when the dump began
}

// newPair creates both hosts and starts a pair on them.
func newPair(t *testing.T, e engine, dumpServer bool, kinds []string, options ...string) *pair {
	t.Helper()
	p := newHosts(t)
	p.start(t, e, dumpServer, kinds, options...)
	return p
}

// newHosts creates the hosts of a pair, on which nothing runs yet.
func newHosts(t *testing.T) *pair {
	t.Helper()
	topo := newTopology(t)
	return &pair{app: topo.newHost("app"), peer: topo.newHost("peer")}
}

// start starts both programs and a capture on the peer. With dumpServer the
// engine runs the server, which is then the one to be dumped; otherwise it runs
// the client.
func (p *pair) start(t *testing.T, e engine, dumpServer bool, kinds []string, options ...string) {
	t.Helper()
	p.rules = ruleset(t, p.app.netns)
	if dumpServer {
		p.server = serve(t, e, p.app, options...)
		p.client = connect(t, plainCRIU{}, p.peer, cmp.Or(p.via, p.app), kinds)
		p.dumped = p.server
	} else {
		p.server = serve(t, plainCRIU{}, p.peer)
		p.client = connect(t, e, p.app, cmp.Or(p.via, p.peer), kinds, options...)
		p.dumped = p.client
	}
	p.awaitTraffic(patience, time.Now())
	p.packets = startCapture(t, p.peer.netns, iface)
	p.from = time.Now()
	t.Cleanup(func() {
		if t.Failed() && !p.packets.done {
			t.Logf("captured on the peer since the dump began: %v", p.packets.since(p.from).stray())
		}
	})
}

// dump dumps with leave-running, and ends the test if that fails.
func (p *pair) dump(options ...string) {
	p.dumped.t.Helper()
	if err := p.dumped.engine.dump(p.dumped, true, options...); err != nil {
		p.dumped.t.Fatalf("dump: %v", err)
	}
}

// holdAndThaw dumps by policy hold, and has netfreeze undo that.
func (p *pair) holdAndThaw() {
	p.dumped.t.Helper()
	p.dump()
	p.dumped.awaitStop()
	mustRun(p.dumped.t, "", "", netfreeze, "thaw", fmt.Sprint(p.dumped.pid))
	p.awaitTraffic(patience, time.Now())
}

// holdAndKill dumps by policy hold, and has netfreeze end what is held.
func (p *pair) holdAndKill() {
	p.dumped.t.Helper()
	p.dump()
	p.dumped.awaitStop()
	mustRun(p.dumped.t, "", "", netfreeze, "kill", fmt.Sprint(p.dumped.pid))
	p.dumped.awaitEnd()
}

// restore restores into the host's current namespace, and checks that the
// connections continue as if nothing had happened.
func (p *pair) restore() {
	p.dumped.t.Helper()
	if err := p.dumped.engine.restore(p.dumped); err != nil {
		p.dumped.t.Fatalf("restore: %v", err)
	}
	p.checkUnharmed(time.Now())
}

// checkUnharmed checks that every connection carries traffic after the given
// time, that not a byte is missing, that the peer saw neither FIN nor RST, and
// that our rules are gone.
func (p *pair) checkUnharmed(after time.Time) {
	t := p.dumped.t
	t.Helper()
	p.awaitResumption(after)
	awaitRelease(t, patience, p.app.netns, p.rules)
	p.checkAllBytes()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
}
