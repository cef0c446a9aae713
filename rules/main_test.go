// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// backends are the real back ends, without the names that stand for one of them.
var backends = []backend.Kind{backend.NFTables, backend.IPTablesNFT, backend.IPTablesLegacy}

func open(tb testing.TB, ns *netns.Namespace, k backend.Kind) Freezer {
	tb.Helper()
	i, err := ns.Isolate()
	if err != nil {
		tb.Fatal(err)
	}
	f, err := Open(i, k)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { must(tb, f.Close()) })
	return f
}

func openConns(tb testing.TB, ns *netns.Namespace, k backend.Kind, owner string) ConnFreezer {
	tb.Helper()
	f, err := OpenConns(ns, k, owner)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { must(tb, f.Close()) })
	return f
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func tuple(local, remote string) tcp.Tuple {
	return tcp.Tuple{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
}

// saves are the commands that print all rules of a back end.
var saves = map[backend.Kind][][]string{
	backend.NFTables:       {{"nft", "list", "ruleset"}},
	backend.IPTablesNFT:    {{"iptables-nft-save"}, {"ip6tables-nft-save"}},
	backend.IPTablesLegacy: {{"iptables-legacy-save"}, {"ip6tables-legacy-save"}},
}

// ruleset returns the rules of a namespace as a back end's own tools print them.
func ruleset(tb testing.TB, ns *netns.Namespace, k backend.Kind) string {
	tb.Helper()
	var b strings.Builder
	for _, c := range saves[k] {
		b.WriteString("$ " + strings.Join(c, " ") + "\n")
		b.WriteString(nstest.Run(tb, ns, c[0], c[1:]...))
	}
	return normalise(b.String())
}

// everything returns all rules of a namespace, printed by the tools of all back ends.
func everything(tb testing.TB, ns *netns.Namespace) string {
	tb.Helper()
	var all []string
	for _, k := range backends {
		all = append(all, ruleset(tb, ns, k))
	}
	return strings.Join(all, "\n")
}

var normaliser = strings.NewReplacer(
	// Older and newer versions of nft print these differently.
	"tcp flags & (syn | ack) == syn", "tcp flags syn / syn,ack",
	"tcp flags & rst == rst", "tcp flags rst / rst",
	"tcp flags == ack", "tcp flags ack",
	"nd-neighbor-solicit-nd-neighbor-advert", "135-136",
)

var variable = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?m)^# (Generated|Completed|Warning|Table).*\n`), ""},
	{regexp.MustCompile(`timeout \S+ expires [^ ,}]+`), "timeout TTL expires LEFT"},
	{regexp.MustCompile(`--datestop \S+`), "--datestop END"},
	{regexp.MustCompile(`\[\d+:\d+\]`), "[0:0]"},
	{regexp.MustCompile(`counter packets \d+ bytes \d+`), "counter"},
	{regexp.MustCompile(`(?m)[ \t]+$`), ""},
	{regexp.MustCompile(`,\n\s+`), ", "}, // newer versions of nft break the line between set elements
}

// normalise replaces what differs from run to run.
func normalise(s string) string {
	for _, v := range variable {
		s = v.pattern.ReplaceAllString(s, v.instead)
	}
	return normaliser.Replace(s)
}

// eventually waits until f returns true, and fails the test after a long time.
func eventually(tb testing.TB, what string, f func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("waited for %s in vain", what)
		}
	}
}
