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

// Where CNI's plugins are: Debian's, and ours as it is installed.
var cniPath = strings.Join([]string{"/usr/lib/cni", filepath.Join(build, "dest", "opt", "cni", "bin")}, ":")

// cniNet is a network of the switch's namespace, which is the node here, that
// CNI's plugins connect hosts to.
type cniNet struct {
	w    *world
	name string
	conf string // directory of the configuration list
	pod  string // NAMESPACE/NAME, "" for none
}

// The plugins that connect a host to the world's switch: to its bridge, or by
// macvlan through an interface that is cabled to it.
const (
	bridgePlugin  = `{"type": "bridge", "bridge": "br0", "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}}`
	macvlanPlugin = `{"type": "macvlan", "master": "uplink", "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}}`
	// Addresses by host-local; what it keeps is in the lab alone.
	hostLocalPlugin = `{"type": "bridge", "bridge": "br0", "capabilities": {"mac": true}, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.%d.0/24", "rangeStart": "10.88.%[1]d.100"}]]}}`
)

// ours is our plugin's entry in a list, with more of its configuration.
func ours(more string) string {
	return `{"type": "netfreeze-cni", "capabilities": {"ips": true}` + more + `}`
}

// newCNI makes a network of these plugins.
func newCNI(w *world, version string, plugins ...string) *cniNet {
	w.t.Helper()
	n := &cniNet{w: w, name: fmt.Sprintf("w%d-net", w.n), conf: w.t.TempDir()}
	list := fmt.Sprintf(`{"cniVersion": %q, "name": %q, "plugins": [%s]}`, version, n.name, strings.Join(plugins, ", "))
	if err := os.WriteFile(filepath.Join(n.conf, "net.conflist"), []byte(list), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if strings.Contains(list, "macvlan") {
		w.ip(w.sw, "link add uplink type veth peer name uplink-port",
			"link set uplink addrgenmode none up", "link set uplink-port master br0 addrgenmode none up")
	}
	return n
}

// do has cnitool do something for a host in a namespace.
func (n *cniNet) do(verb string, h *host, netns string) (string, error) {
	args := []string{
		"env", "CNI_PATH=" + cniPath, "NETCONFPATH=" + n.conf, "CNI_IFNAME=" + iface,
		fmt.Sprintf(`CAP_ARGS={"ips": ["%s/24", "%s/64"], "mac": %q}`, h.v4, h.v6, h.mac),
	}
	if n.pod != "" {
		namespace, name, _ := strings.Cut(n.pod, "/")
		args = append(args, fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s", namespace, name))
	}
	return runIn(n.w.sw, "", append(args, cnitool, verb, n.name, netnsPath(netns))...)
}

func (n *cniNet) must(verb string, h *host, netns string) string {
	n.w.t.Helper()
	out, err := n.do(verb, h, netns)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return out
}

// newHost makes a host that the network's plugins connect.
func (n *cniNet) newHost(name string) *host {
	n.w.t.Helper()
	h := n.w.describeHost(name)
	h.netns = n.w.newNetns(name)
	n.birth(h.netns)
	n.must("add", h, h.netns)
	return h
}

// birth spares a namespace the detection of duplicate IPv6 addresses, as the
// bridge plugin does and macvlan does not: nobody can bind to an address while
// it goes on, CRIU included.
func (n *cniNet) birth(netns string) {
	n.w.t.Helper()
	mustRun(n.w.t, netns, "", "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
}

// move takes a host to a new namespace, in the order of a container runtime.
func (n *cniNet) move(h *host) {
	n.w.t.Helper()
	n.must("del", h, h.netns)
	n.w.removeNetns(h.netns)
	h.netns = h.elsewhere(n.birth)
	n.must("add", h, h.netns)
}

// isFrozen asks the kernel.
func isFrozen(t *testing.T, netns string) bool {
	t.Helper()
	return strings.Contains(ruleset(t, netns), "criu-netfreeze")
}

// expect announces a restore, and takes that back at the test's end.
func expect(t *testing.T, args ...string) {
	t.Helper()
	mustRun(t, "", "", append([]string{netfreeze, "expect", "--for", "10m"}, args...)...)
	t.Cleanup(func() { mustRun(t, "", "", append([]string{netfreeze, "expect", "--cancel"}, args...)...) })
}

// TestCNI has cnitool drive real plugins with ours among them, first and last.
func TestCNI(t *testing.T) {
	withSuite(t, settings{policy: "kill"})
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%s", version, map[bool]string{true: "first", false: "last"}[first]), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				plugins := []string{bridgePlugin, ours(`, "pods": ["shop/db-*"]`)}
				if first {
					plugins[0], plugins[1] = plugins[1], plugins[0]
				}
				n := newCNI(w, version, plugins...)
				h := w.describeHost("app")

				// A pod that nobody expects: as if the plugin was not there.
				unmatched := fmt.Sprintf("shop/web-%d", w.n)
				n.pod = unmatched
				other := w.newNetns("other")
				result := n.must("add", h, other)
				for _, want := range []string{h.v4.String(), h.v6.String(), h.mac, `"cniVersion": "` + version} {
					if !strings.Contains(result, want) {
						t.Errorf("the result lacks %s: %s", want, result)
					}
				}
				if isFrozen(t, other) || status(t, other) != "" {
					t.Error("a pod that is not expected was touched")
				}
				n.must("check", h, other)
				n.must("del", h, other)

				// By a pattern, by the pod and by the address.
				for i, how := range [][2]string{{"shop/db-0", ""}, {unmatched, "--pod=" + unmatched}, {"", "--address=" + h.v6.String()}} {
					n.pod = how[0]
					if how[1] != "" {
						expect(t, how[1])
					}
					netns := w.newNetns(fmt.Sprintf("app%d", i))
					n.must("add", h, netns)
					if !isFrozen(t, netns) || !strings.Contains(status(t, netns), "netfreeze-cni") {
						t.Fatalf("%v: not frozen: %s", how, status(t, netns))
					}
					n.must("check", h, netns)
					mustRun(t, "", "", netfreeze, "thaw", netns)
					n.must("check", h, netns) // somebody wanted it so
					n.must("del", h, netns)
					n.must("add", h, netns)
					if version == "1.1.0" {
						n.must("status", h, netns)
						n.must("gc", h, netns) // with no attachment that is valid
						if s := status(t, netns); s != "" {
							t.Errorf("gc left the record: %s", s)
						}
					}
					n.must("del", h, netns)
					n.must("del", h, netns)
					w.removeNetns(netns)
					n.must("del", h, netns)
				}
			})
		}
	}
}

// TestCNICheck takes the rules of a waiting freeze away behind the plugin's back.
func TestCNICheck(t *testing.T) {
	withSuite(t, settings{policy: "kill"})
	w := newWorld(t)
	n := newCNI(w, "1.0.0", ours(`, "pods": ["shop/*"]`), bridgePlugin)
	n.pod = "shop/db-0"
	h := n.newHost("app")
	n.must("check", h, h.netns)
	mustRun(t, h.netns, "", "nft", "delete", "table", "inet", "criu-netfreeze")
	if out, err := n.do("check", h, h.netns); err == nil || !strings.Contains(out, "is no longer") {
		t.Errorf("a freeze that has gone was not noticed: %v", err)
	}
	n.must("del", h, h.netns)
}

// TestCNIHostLocal has host-local choose the address, which only a plugin
// behind it can know.
func TestCNIHostLocal(t *testing.T) {
	withSuite(t, settings{policy: "kill"})
	w := newWorld(t)
	n := newCNI(w, "1.0.0", fmt.Sprintf(hostLocalPlugin, w.n), ours(""))
	expect(t, "--address", fmt.Sprintf("10.88.%d.101", w.n))
	h := w.describeHost("app")
	for i, frozen := range []bool{false, true, false} {
		netns := w.newNetns(fmt.Sprintf("app%d", i))
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
		t.Errorf("the list does not say what was met: %s", list)
	}
}

// TestCNIFails has the plugin unable to freeze a pod that is expected: the pod
// must not be set up.
func TestCNIFails(t *testing.T) {
	withSuite(t, settings{policy: "kill"})
	w := newWorld(t)
	n := newCNI(w, "1.0.0", ours(`, "pods": ["shop/*"]`), bridgePlugin)
	h := w.describeHost("app")
	netns := w.newNetns("app")
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
	// Others do not suffer from it.
	n.pod = "else/db-0"
	n.must("add", h, netns)
	n.must("del", h, netns)
	bad := newCNI(newWorld(t), "1.0.0", ours(`, "pods": ["shop"]`), bridgePlugin)
	if out, err := bad.do("add", h, netns); err == nil || !strings.Contains(out, `"shop" is not a pattern`) {
		t.Errorf("got %v, want an error that names the pattern", err)
	}
}

// TestCNIVersion asks the plugin itself.
func TestCNIVersion(t *testing.T) {
	cmd := newCommand(context.Background(), "", filepath.Join(build, "dest", "opt", "cni", "bin", "netfreeze-cni"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND=VERSION")
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "1.1.0") || !strings.Contains(string(out), "1.0.0") {
		t.Errorf("VERSION: %s, %v", out, err)
	}
}
