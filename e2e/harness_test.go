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

// The suite as it is installed.
const (
	netfreeze = "/usr/local/bin/netfreeze"
	hook      = "/usr/local/libexec/criu-netfreeze/netfreeze-hook"
	criuDir   = "/etc/criu"
	stateDir  = "/run/criu-netfreeze"
)

// prompt is how soon a connection carries traffic that nothing has touched.
const prompt = time.Second

// settings are what a test wants to be configured.
type settings struct {
	policy  string
	backend string        // "" for the default
	ttl     time.Duration // 0 for the default
	more    string        // further lines of netfreeze.toml
	log     string        // file for netfreeze's log, "" for none
	install []string      // options of "netfreeze install"
}

// withSuite configures the suite for a test and its subtests, which may run at
// the same time, and CRIU to use it: in the files of these engines, and of all
// if none is named. (Every CRIU reads plain criu's file as well as that of the
// runtime that starts it; with both there it runs the hook twice.)
func withSuite(t *testing.T, s settings, of ...engine) {
	t.Helper()
	withoutSuite(t)
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
	// crun falls back to runc.conf, so that it gets a file of its own only
	// where there is none yet.
	for _, e := range []engine{runtimeEngine("crun"), runtimeEngine("runc"), plainCRIU{}} {
		if slices.Contains(of, e) {
			mustRun(t, "", "", append([]string{netfreeze, "install", "--runtime", configOf(e)}, s.install...)...)
		}
	}
	t.Cleanup(func() { mustRun(t, "", "", netfreeze, "uninstall") })
}

// configOf is the name of an engine's configuration file, without the ending.
func configOf(e engine) string {
	if e == (plainCRIU{}) {
		return "default"
	}
	return e.String()
}

// withoutSuite leaves CRIU as it is without us.
func withoutSuite(t *testing.T) {
	t.Helper()
	for _, name := range []string{"default.conf", "runc.conf", "crun.conf", "netfreeze.toml"} {
		if err := os.Remove(filepath.Join(criuDir, name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}

// What iptables' nft variant leaves, ours and that of CRIU's own lock: chains
// with nothing in them, and tables with no other chains.
var (
	emptyChain = regexp.MustCompile(`\tchain [A-Z]+ \{\n\t\ttype filter hook [a-z]+ priority [a-z]+; policy accept;\n\t\}\n\n?`)
	emptyTable = regexp.MustCompile(`table ip6? (filter|raw) \{\n\}\n`)
)

// ruleset is everything that can drop a packet in a namespace, in words.
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

// status is what "netfreeze status" says about a namespace, "" for nothing.
func status(t *testing.T, netns string) string {
	t.Helper()
	out := mustRun(t, "", "", netfreeze, "status", "-o", "json")
	var entries []json.RawMessage
	if err := json.Unmarshal([]byte(out), &entries); err != nil {
		t.Fatalf("status -o json is no list: %v: %s", err, out)
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

// freeze is what one does at a namespace's birth.
func freeze(t *testing.T) func(netns string) {
	return func(netns string) {
		t.Helper()
		mustRun(t, "", "", netfreeze, "freeze", netns)
	}
}

// promptly waits for traffic after a thaw.
func (b both) promptly(after time.Time) {
	t := b.client.t
	t.Helper()
	b.progress(patience, after)
	t.Logf("every connection carried traffic after %s", time.Since(after))
}

// released waits until nothing of ours is left in a namespace: the rules are
// those of before, and status does not know it.
func released(t *testing.T, limit time.Duration, netns, before string) {
	t.Helper()
	poll(t, limit, "release of "+netns, func() error {
		if now := ruleset(t, netns); now != before {
			return fmt.Errorf("its rules are\n%s\nand were\n%s", now, before)
		}
		if s := status(t, netns); s != "" {
			return fmt.Errorf("its status is %s", s)
		}
		return nil
	})
}

// gone waits until the suite has ended the task.
func (k *task) gone() {
	k.t.Helper()
	poll(k.t, patience, "silent end of "+k.id, func() error {
		if alive(k.pid) {
			return fmt.Errorf("process %d lives", k.pid)
		}
		return nil
	})
}

// pair is two busy programs on two new hosts, one of which will be dumped. The
// other is the peer, a plain process that goes on throughout.
type pair struct {
	both
	dumped    *task
	app, peer *host
	via       *host // where the client finds the server: on its host, or at a relay
	packets   *capture
	rules     string    // in the app's namespace, before
	from      time.Time // when the dump began
}

// newPair makes both hosts and starts a pair on them.
func newPair(t *testing.T, e engine, dumpServer bool, kinds []string, options ...string) *pair {
	t.Helper()
	p := newHosts(t)
	p.start(t, e, dumpServer, kinds, options...)
	return p
}

// newHosts makes the hosts of a pair, on which nothing runs yet.
func newHosts(t *testing.T) *pair {
	t.Helper()
	w := newWorld(t)
	return &pair{app: w.newHost("app"), peer: w.newHost("peer")}
}

// start starts both programs and captures at the peer; the server is the one
// that an engine runs and that will be dumped, or else the client.
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
	p.progress(patience, time.Now())
	p.packets = startCapture(t, p.peer.netns, iface)
	p.from = time.Now()
	t.Cleanup(func() {
		if t.Failed() && !p.packets.done {
			t.Logf("captured at the peer since the dump began: %v", p.packets.since(p.from).stray())
		}
	})
}

// dump dumps with leave-running, and the test ends if it fails.
func (p *pair) dump(options ...string) {
	p.dumped.t.Helper()
	if err := p.dumped.engine.dump(p.dumped, true, options...); err != nil {
		p.dumped.t.Fatalf("dump: %v", err)
	}
}

// restore restores to where the host is now, and checks that it was as if
// nothing had happened.
func (p *pair) restore() {
	p.dumped.t.Helper()
	if err := p.dumped.engine.restore(p.dumped); err != nil {
		p.dumped.t.Fatalf("restore: %v", err)
	}
	p.unharmed(time.Now())
}

// unharmed checks that every connection goes on soon after a time, that not a
// byte is missing, that the peer saw neither FIN nor RST, and that our rules
// are gone.
func (p *pair) unharmed(after time.Time) {
	t := p.dumped.t
	t.Helper()
	p.promptly(after)
	released(t, patience, p.app.netns, p.rules)
	p.settle()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
}
