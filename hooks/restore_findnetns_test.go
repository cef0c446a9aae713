// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// TestSharedRefused: images that say that the tree was in the host's namespace are
// refused where the bundle asks for a namespace, or cannot be read. So no image
// chooses which of the host's connections are frozen.
func TestSharedRefused(t *testing.T) {
	criu := newStage(t, true, "restore").env.CRIU.Ref
	shared := &criuimg.Checkpoint{NetNS: criuimg.Shared}
	ct := &container.Container{Container: identity.Container{ID: "abc"}, Bundle: "/bundles/abc", HasNetNS: true}
	for _, path := range []string{"", "/run/netns/pod"} {
		ct.NetNSPath = path
		ns, _, err := findNetNS(criu, shared, ct)
		if ns != nil || err == nil || !strings.Contains(err.Error(), "container abc is to have one of its own (/bundles/abc/config.json)") {
			t.Errorf("with the path %q: %v, %v", path, ns, err)
		}
	}
	ct.HasNetNS, ct.NetNSPath = false, ""
	ns, _, err := findNetNS(criu, shared, ct)
	if err != nil {
		t.Fatalf("a container in the host's namespace: %v", err)
	}
	ns.Close()

	for _, tc := range []struct{ config, want, code string }{
		{"", "cannot be told", ""},
		{"{", "cannot be told", ""},
		{`{"linux": {"namespaces": [{"type": "network"}]}}`, "container c1 is to have one of its own", "[NF504]"},
		{`{"linux": {"namespaces": [{"type": "pid"}]}}`, "", ""},
	} {
		bundle := t.TempDir()
		if tc.config != "" {
			must(t, os.WriteFile(filepath.Join(bundle, "config.json"), []byte(tc.config), 0o600))
		}
		criu := underRuntime(t, bundle)
		ct, _ := container.Runtime(criu.PID)
		ns, _, err := findNetNS(criu, shared, ct)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.code)) {
			t.Errorf("config.json %q: %v, want %q", tc.config, err, tc.want)
		}
		if ns != nil {
			ns.Close()
		}
	}
}

// underRuntime starts a process whose parent has a runtime's command line.
func underRuntime(t *testing.T, bundle string) proc.Ref {
	t.Helper()
	sh, err := exec.LookPath("sh")
	must(t, err)
	cmd := &exec.Cmd{Path: sh, Args: []string{"runc", "-c", "sleep 600 & echo $!; wait", "restore", "--bundle", bundle, "c1"}}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var pid int
	_, err = fmt.Fscan(out, &pid)
	must(t, err)
	p, err := proc.Open(pid)
	must(t, err)
	t.Cleanup(func() { _ = p.Signal(unix.SIGKILL); p.Close() })
	return p.Ref
}

// track adds an entry to the connection tracking of a namespace.
func track(t *testing.T, ns *netns.Namespace, c tcp.Tuple) {
	t.Helper()
	half := func(from, to netip.AddrPort) netlink.IPTuple {
		return netlink.IPTuple{
			Protocol: unix.IPPROTO_TCP, SrcIP: net.IP(from.Addr().AsSlice()), SrcPort: from.Port(),
			DstIP: net.IP(to.Addr().AsSlice()), DstPort: to.Port(),
		}
	}
	family := netlink.InetFamily(unix.AF_INET6)
	if c.Is4() {
		family = unix.AF_INET
	}
	flow := &netlink.ConntrackFlow{
		FamilyType: uint8(family), Forward: half(c.Local, c.Remote), Reverse: half(c.Remote, c.Local), TimeOut: 600,
		ProtoInfo: &netlink.ProtoInfoTCP{State: 3}, // established
	}
	must(t, ns.Do(func() error { return netlink.ConntrackCreate(netlink.ConntrackTable, family, flow) }))
}

// tracked returns the local ends of what a namespace's connection tracking has of
// connections to the peer.
func tracked(t *testing.T, ns *netns.Namespace) (locals []string) {
	t.Helper()
	must(t, ns.Do(func() error {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				return err
			}
			for _, f := range flows {
				if f.Forward.DstPort == flowsPeer.Port() {
					locals = append(locals, f.Forward.SrcIP.String())
				}
			}
		}
		return nil
	}))
	slices.Sort(locals)
	return locals
}

var flowsPeer = netip.MustParseAddrPort("198.51.100.7:50007")

// TestForgetFlows: of the host's connection tracking only entries go whose connection
// had a local address that is the target's and not the host's, whatever connections
// the images tell of.
func TestForgetFlows(t *testing.T) {
	host, err := netns.OpenHost() // of these tests
	must(t, err)
	t.Cleanup(func() { _ = host.Close() })
	target := nstest.New(t)
	nstest.Run(t, host, "ip", "link", "set", "lo", "up")
	const (
		moved   = "10.9.0.1"        // the target's
		hosts   = "10.9.0.2"        // the host's
		both    = "10.9.0.3"        // the host's, and taken by the target
		another = "10.9.0.4"        // of neither: another container's
		local   = "127.0.0.1"       // of both
		unnamed = "127.8.8.8"       // the host's without being there, and taken by the target
		quiet   = "10.9.0.5"        // the target's, but not in the images
		six     = "2001:db8:9::1"   // the target's
		six2    = "2001:db8:9::2"   // the host's
		mapped  = "::ffff:10.9.0.6" // the target's, as an IPv6 socket has it
	)
	for ns, addrs := range map[*netns.Namespace][]string{
		target: {moved + "/32", both + "/32", unnamed + "/8", quiet + "/32", six + "/128", "10.9.0.6/32"},
		host:   {hosts + "/32", both + "/32", six2 + "/128"},
	} {
		for _, a := range addrs {
			nstest.Run(t, ns, "ip", "addr", "add", a, "dev", "lo")
			if ns == host {
				t.Cleanup(func() { nstest.Run(t, host, "ip", "addr", "del", a, "dev", "lo") })
			}
		}
	}
	conn := func(addr string) tcp.Tuple {
		local := netip.AddrPortFrom(netip.MustParseAddr(addr), 443)
		remote := flowsPeer
		if local.Addr().Is6() && !local.Addr().Is4In6() {
			remote = netip.AddrPortFrom(netip.MustParseAddr("2001:db8:7::7"), flowsPeer.Port())
		}
		return tcp.NewTuple(local, remote)
	}
	var conns []tcp.Tuple
	for _, a := range []string{moved, hosts, both, another, local, unnamed, six, six2, mapped} {
		conns = append(conns, conn(a))
	}
	for _, ns := range []*netns.Namespace{host, target} {
		for _, c := range append(conns, conn(quiet)) {
			track(t, ns, c)
		}
	}
	log := logrus.New()
	log.SetOutput(t.Output())
	must(t, forgetFlows(log, target, conns))
	for ns, want := range map[*netns.Namespace][]string{
		host:   {hosts, both, another, local, unnamed, quiet, six2},
		target: {hosts, another, quiet, six2},
	} {
		slices.Sort(want)
		if got := tracked(t, ns); !slices.Equal(got, want) {
			t.Errorf("%s: %v are left, want %v", ns, got, want)
		}
	}

	// The host itself as the target: a tree in its namespace.
	must(t, forgetFlows(log, host, conns))
	want := []string{another, unnamed, quiet}
	slices.Sort(want)
	if got := tracked(t, host); !slices.Equal(got, want) {
		t.Errorf("in the host's namespace %v are left, want %v", got, want)
	}
}
