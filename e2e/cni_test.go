// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cnitool is the CNI project's own runtime, in its simplest form.
var cnitool = filepath.Join(build, "cnitool")

// cniPath lists the directories of CNI plugins: Debian's, and the one that ours
// is installed in.
var cniPath = strings.Join([]string{"/usr/lib/cni", filepath.Join(build, "dest", "opt", "cni", "bin")}, ":")

// cniNet is a CNI network in the switch's namespace, which plays the node here.
type cniNet struct {
	topo *topology
	name string
	conf string // directory of the configuration list
	pod  string // NAMESPACE/NAME, or "" for no pod
}

// The plugins that connect a host to the topology's switch: to its bridge, or
// by macvlan on an interface that is connected to the bridge.
const (
	bridgePlugin  = `{"type": "bridge", "bridge": "br0", "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}}`
	macvlanPlugin = `{"type": "macvlan", "master": "uplink", "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}}`
	// With addresses from host-local, whose files stay in the lab.
	hostLocalPlugin = `{"type": "bridge", "bridge": "br0", "capabilities": {"mac": true}, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.%d.0/24", "rangeStart": "10.88.%[1]d.100"}]]}}`
)

// netfreezePlugin returns our plugin's entry for a plugin list, with additional
// configuration.
func netfreezePlugin(more string) string {
	return `{"type": "netfreeze-cni", "capabilities": {"ips": true}` + more + `}`
}

// newCNI creates a network with these plugins.
func newCNI(topo *topology, version string, plugins ...string) *cniNet {
	topo.t.Helper()
	n := &cniNet{topo: topo, name: fmt.Sprintf("t%d-net", topo.n), conf: topo.t.TempDir()}
	list := fmt.Sprintf(`{"cniVersion": %q, "name": %q, "plugins": [%s]}`, version, n.name, strings.Join(plugins, ", "))
	if err := os.WriteFile(filepath.Join(n.conf, "net.conflist"), []byte(list), 0o600); err != nil {
		topo.t.Fatal(err)
	}
	if strings.Contains(list, "macvlan") {
		topo.ip(topo.switchNetns, "link add uplink type veth peer name uplink-port",
			"link set uplink addrgenmode none up", "link set uplink-port master br0 addrgenmode none up")
	}
	return n
}

// do runs a cnitool command for a host in a namespace.
func (n *cniNet) do(verb string, h *host, netns string) (string, error) {
	args := []string{
		"env", "CNI_PATH=" + cniPath, "NETCONFPATH=" + n.conf, "CNI_IFNAME=" + iface,
		fmt.Sprintf(`CAP_ARGS={"ips": ["%s/24", "%s/64"], "mac": %q}`, h.v4, h.v6, h.mac),
	}
	if n.pod != "" {
		namespace, name, _ := strings.Cut(n.pod, "/")
		args = append(args, fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s", namespace, name))
	}
	return runIn(n.topo.switchNetns, "", append(args, cnitool, verb, n.name, netnsPath(netns))...)
}

func (n *cniNet) must(verb string, h *host, netns string) string {
	n.topo.t.Helper()
	out, err := n.do(verb, h, netns)
	if err != nil {
		n.topo.t.Fatal(err)
	}
	return out
}

// newHost creates a host that the network's plugins connect.
func (n *cniNet) newHost(name string) *host {
	n.topo.t.Helper()
	h := n.topo.describeHost(name)
	h.netns = n.topo.newNetns(name)
	n.birth(h.netns)
	n.must("add", h, h.netns)
	return h
}

// birth turns off duplicate address detection for IPv6 in a new namespace, as
// the bridge plugin does and macvlan does not: while it goes on, nobody can bind
// to the address, CRIU included.
func (n *cniNet) birth(netns string) {
	n.topo.t.Helper()
	mustRun(n.topo.t, netns, "", "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
}

// move moves a host to a new namespace, in the order that a container runtime
// follows.
func (n *cniNet) move(h *host) {
	n.topo.t.Helper()
	n.must("del", h, h.netns)
	n.topo.removeNetns(h.netns)
	h.netns = h.nextNetns(n.birth)
	n.must("add", h, h.netns)
}

// isFrozen reports whether our rules are in a namespace.
func isFrozen(t *testing.T, netns string) bool {
	t.Helper()
	return strings.Contains(ruleset(t, netns), "criu-netfreeze")
}

// expect announces a restore, and cancels the announcement at the test's end.
func expect(t *testing.T, args ...string) {
	t.Helper()
	mustRun(t, "", "", append([]string{netfreeze, "expect", "--for", "10m"}, args...)...)
	t.Cleanup(func() { mustRun(t, "", "", append([]string{netfreeze, "expect", "--cancel"}, args...)...) })
}

// TestCNI has cnitool run real plugins, with ours first or last in the list.
func TestCNI(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"})
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%s", version, map[bool]string{true: "first", false: "last"}[first]), func(t *testing.T) {
				t.Parallel()
				topo := newTopology(t)
				plugins := []string{bridgePlugin, netfreezePlugin(`, "pods": ["shop/db-*"]`)}
				if first {
					plugins[0], plugins[1] = plugins[1], plugins[0]
				}
				n := newCNI(topo, version, plugins...)
				h := topo.describeHost("app")

				// A pod that nobody expects: as if our plugin were not there.
				unmatched := fmt.Sprintf("shop/web-%d", topo.n)
				n.pod = unmatched
				other := topo.newNetns("other")
				result := n.must("add", h, other)
				for _, want := range []string{h.v4.String(), h.v6.String(), h.mac, `"cniVersion": "` + version} {
					if !strings.Contains(result, want) {
						t.Errorf("the result lacks %s: %s", want, result)
					}
				}
				if isFrozen(t, other) || status(t, other) != "" {
					t.Error("a pod that was not expected has been frozen")
				}
				n.must("check", h, other)
				n.must("del", h, other)

				// Expected by a pattern, by the pod's name and by the address.
				for i, how := range [][2]string{{"shop/db-0", ""}, {unmatched, "--pod=" + unmatched}, {"", "--address=" + h.v6.String()}} {
					n.pod = how[0]
					if how[1] != "" {
						expect(t, how[1])
					}
					netns := topo.newNetns(fmt.Sprintf("app%d", i))
					n.must("add", h, netns)
					if !isFrozen(t, netns) || !strings.Contains(status(t, netns), "netfreeze-cni") {
						t.Fatalf("%v: not frozen: %s", how, status(t, netns))
					}
					n.must("check", h, netns)
					mustRun(t, "", "", netfreeze, "thaw", netns)
					n.must("check", h, netns) // thawed on purpose: no error
					n.must("del", h, netns)
					n.must("add", h, netns)
					if version == "1.1.0" {
						n.must("status", h, netns)
						n.must("gc", h, netns) // with no valid attachment
						if s := status(t, netns); s != "" {
							t.Errorf("gc has left the record: %s", s)
						}
					}
					n.must("del", h, netns)
					n.must("del", h, netns)
					topo.removeNetns(netns)
					n.must("del", h, netns)
				}
			})
		}
	}
}

// TestCNICheck removes the rules of a pending freeze behind the plugin's back.
func TestCNICheck(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"})
	topo := newTopology(t)
	n := newCNI(topo, "1.0.0", netfreezePlugin(`, "pods": ["shop/*"]`), bridgePlugin)
	n.pod = "shop/db-0"
	h := n.newHost("app")
	n.must("check", h, h.netns)
	mustRun(t, h.netns, "", "nft", "delete", "table", "inet", "criu-netfreeze")
	if out, err := n.do("check", h, h.netns); err == nil || !strings.Contains(out, "is no longer") || !strings.Contains(out, "NF205") {
		t.Errorf("CHECK did not notice that the freeze is gone: %v", err)
	}
	n.must("del", h, h.netns)
}

// TestCNIHostLocal has host-local choose the address, so that only a plugin that
// runs after it can know the address.
func TestCNIHostLocal(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"})
	topo := newTopology(t)
	n := newCNI(topo, "1.0.0", fmt.Sprintf(hostLocalPlugin, topo.n), netfreezePlugin(""))
	expect(t, "--address", fmt.Sprintf("10.88.%d.101", topo.n))
	h := topo.describeHost("app")
	for i, frozen := range []bool{false, true, false} {
		netns := topo.newNetns(fmt.Sprintf("app%d", i))
		var result struct {
			IPs []struct{ Address string }
		}
		if err := json.Unmarshal([]byte(n.must("add", h, netns)), &result); err != nil {
			t.Fatal(err)
		}
		defer n.must("del", h, netns)
		if got := isFrozen(t, netns); got != frozen {
			t.Errorf("%v is frozen: %v, want %v", result.IPs, got, frozen)
		}
	}
	list := mustRun(t, "", "", netfreeze, "expect", "--list")
	if !strings.Contains(list, "netfreeze-cni, net:[") {
		t.Errorf("the list does not say which expectation was met: %s", list)
	}
}

// TestCNIFails keeps the plugin from freezing a pod that is expected: the pod
// must not be set up.
func TestCNIFails(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"})
	topo := newTopology(t)
	n := newCNI(topo, "1.0.0", netfreezePlugin(`, "pods": ["shop/*"]`), bridgePlugin)
	h := topo.describeHost("app")
	netns := topo.newNetns("app")
	if err := os.WriteFile(filepath.Join(criuDir, "netfreeze.toml"), []byte("backend = \"none\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.pod = "shop/db-0"
	out, err := n.do("add", h, netns)
	if err == nil || !strings.Contains(out, "cannot freeze") || !strings.Contains(out, "netfreeze.toml:1") {
		t.Errorf("got %v, want an error that names what is wrong", err)
	}
	if links := mustRun(t, netns, "", "ip", "-o", "link"); strings.Contains(links, iface) {
		t.Errorf("the namespace was connected: %s", links)
	}
	// Pods that are not expected are not affected.
	n.pod = "else/db-0"
	n.must("add", h, netns)
	n.must("del", h, netns)
	bad := newCNI(newTopology(t), "1.0.0", netfreezePlugin(`, "pods": ["shop"]`), bridgePlugin)
	if out, err := bad.do("add", h, netns); err == nil || !strings.Contains(out, `"shop" is not a pattern`) {
		t.Errorf("got %v, want an error that names the pattern", err)
	}
}

// TestCNIVersion asks the plugin for the versions of the CNI specification that
// it supports.
func TestCNIVersion(t *testing.T) {
	cmd := newCommand(context.Background(), "", filepath.Join(build, "dest", "opt", "cni", "bin", "netfreeze-cni"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND=VERSION")
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "1.1.0") || !strings.Contains(string(out), "1.0.0") {
		t.Errorf("VERSION: %s, %v", out, err)
	}
}
