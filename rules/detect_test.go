// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// TestThawHalf removes whatever rules an interrupted program may have left behind.
func TestThawHalf(t *testing.T) {
	t.Parallel()
	const in, out = "CRIU-NETFREEZE-IN", "CRIU-NETFREEZE-OUT"
	nft := func(script string) [][]string { return [][]string{{"nft", script}} }
	halves := map[backend.Kind]map[string][][]string{backend.NFTables: {
		"empty table":  nft("add table inet criu-netfreeze"),
		"netdev table": nft("add table netdev criu-netfreeze"),
		"another form": nft("add table inet criu-netfreeze; add set inet criu-netfreeze frozen { type inet_service; }; add chain inet criu-netfreeze x"),
	}}
	for _, variant := range []string{"nft", "legacy"} {
		ipt := func(family, args string) []string {
			return append([]string{family + "tables-" + variant, "-w", "-t", "raw"}, strings.Fields(args)...)
		}
		halves[backend.Kind("iptables-"+variant)] = map[string][][]string{
			"a chain alone":    {ipt("ip", "-N "+in)},
			"IPv6 alone":       {ipt("ip6", "-N "+out), ipt("ip6", "-A OUTPUT -j "+out)},
			"no way to it":     {ipt("ip", "-N "+in), ipt("ip", "-N "+out), ipt("ip", "-A "+in+" -j DROP")},
			"two ways to it":   {ipt("ip", "-N "+in), ipt("ip", "-A PREROUTING -j "+in), ipt("ip", "-A PREROUTING -j "+in), ipt("ip", "-N "+out), ipt("ip", "-A OUTPUT -j "+out)},
			"one direction":    {ipt("ip", "-N "+in), ipt("ip", "-A PREROUTING -j "+in), ipt("ip", "-A "+in+" -j DROP")},
			"nothing, but raw": {ipt("ip", "-N x"), ipt("ip", "-X x")},
		}
	}
	thaws := map[string]func(*netns.Isolated, backend.Kind) error{
		"Thaw": func(ns *netns.Isolated, k backend.Kind) error {
			f, err := Open(ns, k)
			if err != nil {
				return err
			}
			return errors.Join(f.Thaw(), f.Close())
		},
		"Freeze and Thaw": func(ns *netns.Isolated, k backend.Kind) error {
			f, err := Open(ns, k)
			if err != nil {
				return err
			}
			return errors.Join(f.Freeze(time.Minute), f.Thaw(), f.Close())
		},
		"ThawAll": func(ns *netns.Isolated, _ backend.Kind) error { return ThawAll(ns) },
	}
	for k, cases := range halves {
		for name, commands := range cases {
			for how, thaw := range thaws {
				t.Run(string(k)+"/"+name+"/"+how, func(t *testing.T) {
					t.Parallel()
					ns := nstest.Isolated(t)
					for _, c := range commands {
						nstest.Run(t, ns.Namespace, c[0], c[1:]...)
					}
					must(t, thaw(ns, k))
					if left := everything(t, ns.Namespace); strings.Contains(strings.ToLower(left), "criu") {
						t.Errorf("left behind:\n%s", left)
					}
				})
			}
		}
	}
}

// TestThawAll removes the rules of all back ends at once.
func TestThawAll(t *testing.T) {
	t.Parallel()
	ns := nstest.Isolated(t)
	must(t, ThawAll(ns)) // there are no rules, not even a table
	foreign(t, ns.Namespace)
	before := everything(t, ns.Namespace)
	must(t, ThawAll(ns))
	for _, k := range backends {
		must(t, open(t, ns.Namespace, k).Freeze(time.Minute))
	}
	must(t, ThawAll(ns))
	must(t, ThawAll(ns))
	if got := everything(t, ns.Namespace); got != before {
		t.Errorf("the rules are\n%s\nand were\n%s", got, before)
	}
	st, err := Look(ns.Namespace)
	must(t, err)
	checkState(t, "Look", st, State{})
}

// TestLook finds one back end's freeze next to another one's unarmed rules.
func TestLook(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	must(t, open(t, ns, backend.NFTables).Prepare(0))
	must(t, open(t, ns, backend.IPTablesLegacy).Freeze(time.Minute))
	st, err := Look(ns)
	must(t, err)
	checkState(t, "Look", st, State{Backend: backend.IPTablesLegacy, Frozen: true, Left: time.Minute})
}

// TestAuto tries the back ends: that leaves no rules behind and removes no freeze.
func TestAuto(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	f := open(t, ns, backend.Auto)
	if f.Backend() != backend.NFTables {
		t.Errorf("the back end is %s, want %s", f.Backend(), backend.NFTables)
	}
	if left := ruleset(t, ns, backend.NFTables); strings.Contains(left, "table") {
		t.Errorf("left behind:\n%s", left)
	}
	must(t, f.Freeze(time.Minute))
	st, err := open(t, ns, backend.Auto).State()
	must(t, err)
	checkState(t, "State", st, State{Backend: backend.NFTables, Frozen: true, Left: time.Minute})

	c := openConns(t, ns, backend.Auto, "x")
	must(t, c.Freeze([]tcp.Tuple{tuple("127.0.0.1:1", "127.0.0.1:2")}, time.Minute))
	checkConns(t, openConns(t, ns, backend.Auto, "x"), tuple("127.0.0.1:1", "127.0.0.1:2"))
}

func TestPlainIPTables(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	f := open(t, ns, backend.IPTables)
	if k := f.Backend(); k != backend.IPTablesNFT && k != backend.IPTablesLegacy {
		t.Errorf("the back end is called %s", k)
	}
	must(t, f.Freeze(time.Minute))
	st, err := Look(ns)
	must(t, err)
	checkState(t, "Look", st, State{Backend: f.Backend(), Frozen: true, Left: time.Minute})
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	ns := nstest.Isolated(t)
	good := tuple("127.0.0.1:1", "127.0.0.1:2")
	check := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want one with %q", what, err, want)
		}
	}
	_, err := backend.Parse("ipfw")
	check("kind", err, "allowed: auto, nftables, iptables, iptables-nft, iptables-legacy")
	_, err = Open(ns, "ipfw")
	check("kind", err, `unknown back end "ipfw"`)
	_, err = OpenConns(ns.Namespace, "ipfw", "x")
	check("kind", err, `unknown back end "ipfw"`)
	for _, owner := range []string{"", "UPPER", "a-b", "x y", "abcdefghijklm", "a;b"} {
		_, err = OpenConns(ns.Namespace, backend.NFTables, owner)
		check("owner", err, "bad owner")
	}
	for _, k := range backends {
		f, c := open(t, ns.Namespace, k), openConns(t, ns.Namespace, k, "x")
		for _, ttl := range []time.Duration{0, -time.Second, 2 * maxTTL} {
			check("ttl", f.Freeze(ttl), "time to live")
			check("ttl", c.Freeze([]tcp.Tuple{good}, ttl), "time to live")
		}
		for _, bad := range []tcp.Tuple{{}, {Local: good.Local}, {Local: good.Local, Remote: tuple("[::1]:1", "[::1]:2").Remote}} {
			check("connection", c.Freeze([]tcp.Tuple{good, bad}, time.Minute), "not a pair of addresses")
		}
	}
	if left := everything(t, ns.Namespace); strings.Contains(strings.ToLower(left), "criu") {
		t.Errorf("left behind:\n%s", left)
	}
}

// TestLongBatch sends so many rules at once that the kernel answers in several pieces.
func TestLongBatch(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c, err := dialNFT(ns)
	must(t, err)
	defer func() { must(t, c.Close()) }()
	for range 2 {
		table, err := c.replace("long")
		must(t, err)
		ch := c.baseChain(table, "output", nftables.ChainHookOutput, nftables.ChainPriorityRaw)
		for range 100 {
			c.passNeighbours(ch, nil)
		}
		must(t, c.commit("add many rules"))
	}
	// The socket still works after a batch that failed.
	c.DelTable(&nftables.Table{Name: "absent", Family: nftables.TableFamilyINet})
	if err := c.commit("delete a table that is not there"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the error is %v, want %v", err, unix.ENOENT)
	}
	must(t, c.remove("long"))
	must(t, c.remove("long"))
}
