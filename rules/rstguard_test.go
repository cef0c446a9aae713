// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestGoldenGuard compares the kernel's rules with a golden file, and makes sure
// that none are left at the end.
func TestGoldenGuard(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	empty := ruleset(t, ns, backend.NFTables)
	for range 2 {
		must(t, GuardAddress(ns, addr("192.0.2.1"), time.Minute))
		must(t, GuardAddress(ns, addr("2001:db8::1"), time.Minute))
		golden(t, "nftables-rst-guard", ruleset(t, ns, backend.NFTables))
	}
	must(t, GuardAddress(ns, addr("::ffff:192.0.2.1"), time.Hour)) // the same address in another form
	all, err := Guards(ns)
	must(t, err)
	if len(all) != 2 || all[0].Address != addr("2001:db8::1") || all[1].Address != addr("192.0.2.1") ||
		all[0].Left > time.Minute || all[1].Left < 50*time.Minute {
		t.Errorf("guards: %v", all)
	}
	must(t, Unguard(ns, addr("192.0.2.7")))
	must(t, Unguard(ns, addr("192.0.2.1")))
	must(t, Unguard(ns, addr("2001:db8::1")))
	if got := ruleset(t, ns, backend.NFTables); got != empty {
		t.Errorf("something was left behind:\n%s", got)
	}
	must(t, Unguard(ns, addr("2001:db8::1")))
}

// TestGuardOnly makes sure that the rules match nothing else: each rule that drops
// matches TCP, RST and a guarded source address, and all other packets pass.
func TestGuardOnly(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	must(t, GuardAddress(ns, addr("192.0.2.1"), time.Minute))
	var drops int
	for line := range strings.Lines(ruleset(t, ns, backend.NFTables)) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "policy") && !strings.Contains(line, "policy accept;") {
			t.Errorf("a chain of policy other than accept: %s", line)
		}
		if !strings.Contains(line, "drop") {
			continue
		}
		drops++
		for _, part := range []string{"tcp flags rst / rst ip", " saddr @guarded"} {
			if !strings.Contains(line, part) {
				t.Errorf("a rule without %q: %s", part, line)
			}
		}
	}
	if drops != 6 {
		t.Errorf("%d rules, want 6: two for each of three chains", drops)
	}
}

// TestGuardRefuses refuses to guard anything but one address for a limited time.
func TestGuardRefuses(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	for _, bad := range []string{"0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "fe80::1%eth0", "255.255.255.255"} {
		if err := GuardAddress(ns, addr(bad), time.Minute); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
	for _, ttl := range []time.Duration{0, -time.Second, 2 * maxTTL} {
		if err := GuardAddress(ns, addr("192.0.2.1"), ttl); err == nil {
			t.Errorf("a time of %s was accepted", ttl)
		}
	}
	if err := GuardAddress(ns, netip.Addr{}, time.Minute); err == nil {
		t.Error("no address was accepted")
	}
	if got := ruleset(t, ns, backend.NFTables); strings.Contains(got, guardTable) {
		t.Errorf("rules were made:\n%s", got)
	}
}

// TestGuardEnds waits for the kernel to end a guard; the next look removes the rules.
func TestGuardEnds(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	empty := ruleset(t, ns, backend.NFTables)
	must(t, GuardAddress(ns, addr("192.0.2.1"), 50*time.Millisecond))
	eventually(t, "the end of the guard", func() bool {
		all, err := Guards(ns)
		must(t, err)
		return len(all) == 0
	})
	if got := ruleset(t, ns, backend.NFTables); got != empty {
		t.Errorf("something was left behind:\n%s", got)
	}
}

// answer returns what a client gets from a port on which nobody listens.
func answer(t *testing.T, from *netns.Namespace, to string) string {
	t.Helper()
	err := from.Do(func() error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(to, "9"), quiet)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	var netErr net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "RST"
	case errors.As(err, &netErr) && netErr.Timeout():
		return "nothing"
	}
	return fmt.Sprint(err)
}

// TestGuardTraffic has a node with a bridge, to which the guarded address and a peer
// are attached, and another peer behind the node. RSTs from the guarded address
// reach neither the peers nor the node; everything else does.
func TestGuardTraffic(t *testing.T) {
	t.Parallel()
	node, a, b, far := nstest.New(t), nstest.New(t), nstest.New(t), nstest.New(t)
	nstest.Run(t, node, "ip", "link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
	nstest.Run(t, node, "ip", "link", "set", "br0", "up")
	const node4, node6, far4, far6 = "192.0.2.254", "2001:db8::fe", "198.51.100.1", "2001:db8:1::1"
	give := func(ns *netns.Namespace, dev, addr4, addr6 string) {
		nstest.Run(t, ns, "ip", "addr", "add", addr4+"/24", "dev", dev)
		nstest.Run(t, ns, "ip", "addr", "add", addr6+"/64", "dev", dev, "nodad")
		nstest.Run(t, ns, "ip", "link", "set", dev, "up")
	}
	for i, h := range []struct {
		ns           *netns.Namespace
		addr4, addr6 string
	}{{a, nstest.A4, nstest.A6}, {b, nstest.B4, nstest.B6}, {far, far4, far6}} {
		port := fmt.Sprintf("port%d", i)
		nstest.Run(t, node, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.ns.FD()))
		give(h.ns, "eth0", h.addr4, h.addr6)
		if h.ns == far {
			give(node, port, "198.51.100.254", "2001:db8:1::fe")
			nstest.Run(t, far, "ip", "route", "add", "default", "via", "198.51.100.254")
			nstest.Run(t, far, "ip", "route", "add", "default", "via", "2001:db8:1::fe")
			continue
		}
		nstest.Run(t, node, "ip", "link", "set", port, "master", "br0", "up")
	}
	give(node, "br0", node4, node6)
	for _, ns := range []*netns.Namespace{a, b} {
		nstest.Run(t, ns, "ip", "route", "add", "default", "via", node4)
		nstest.Run(t, ns, "ip", "route", "add", "default", "via", node6)
	}
	nstest.Run(t, node, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")

	moving := []string{nstest.A4, nstest.A6}
	peers := map[string]*netns.Namespace{"bridge": b, "node": node, "router": far}
	for name, ns := range peers {
		for _, to := range moving {
			eventually(t, name+" reaches "+to, func() bool { return answer(t, ns, to) == "RST" })
		}
	}
	var servers []string
	for _, to := range moving {
		servers = append(servers, serve(t, a, to))
		must(t, GuardAddress(node, addr(to), time.Minute))
	}
	for name, ns := range peers {
		for _, to := range moving {
			if got := answer(t, ns, to); got != "nothing" {
				t.Errorf("%s: %s from %s, which is guarded", name, got, to)
			}
		}
		for _, server := range servers { // SYN+ACK, data, FIN
			l := mustDial(t, ns, server)
			l.passes(t)
			must(t, l.Close())
		}
	}
	// RSTs from other addresses arrive, also at the guarded one.
	for _, to := range []string{nstest.B4, nstest.B6, node4, node6, far4, far6} {
		if got := answer(t, a, to); got != "RST" {
			t.Errorf("%s from %s, which is not guarded", got, to)
		}
	}
	must(t, GuardAddress(node, addr(node4), time.Minute)) // the node's own address
	if got := answer(t, b, node4); got != "nothing" {
		t.Errorf("%s from the node's own address, which is guarded", got)
	}
	for _, to := range slices.Concat(moving, []string{node4}) {
		must(t, Unguard(node, addr(to)))
	}
	for name, ns := range peers {
		for _, to := range moving {
			if got := answer(t, ns, to); got != "RST" {
				t.Errorf("%s: %s from %s, which is no longer guarded", name, got, to)
			}
		}
	}
}
