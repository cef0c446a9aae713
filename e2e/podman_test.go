// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// podmanEngine is podman with runc and a network of its own, to which the
// containers are connected by netavark with fixed addresses.
type podmanEngine struct {
	topo    *topology
	dir     string // configuration and exported checkpoints
	network string
	bridge  string
	pods    bool // each container is alone in a pod, and is restored into another pod
	births  int  // how many pods have been created
}

func (e *podmanEngine) String() string { return "podman" }

// podmanConf keeps podman's files where the lab is writable, and needs no control
// group beyond the lab's. Its default network leaves the topologies' addresses
// free.
const podmanConf = `[network]
network_config_dir = "/var/lib/containers/networks"
default_subnet = "10.87.0.0/24"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
hooks_dir = ["/var/lib/containers/hooks.d"]
[containers]
pids_limit = 0
log_driver = "k8s-file"
`

const trafficImage = "localhost/traffic:1"

// newPodman creates an image of the traffic program and a network, and installs
// our hook where podman looks for hooks, as the README says.
func newPodman(topo *topology, pods bool) *podmanEngine {
	topo.t.Helper()
	e := &podmanEngine{
		topo: topo, dir: topo.t.TempDir(), pods: pods,
		network: fmt.Sprintf("t%d-net", topo.n), bridge: fmt.Sprintf("t%d-podman", topo.n),
	}
	rootfs := filepath.Join(e.dir, "rootfs")
	for _, dir := range []string{rootfs, "/var/lib/containers/networks", "/var/lib/containers/hooks.d"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			topo.t.Fatal(err)
		}
	}
	if err := os.WriteFile(e.conf(), []byte(podmanConf), 0o600); err != nil {
		topo.t.Fatal(err)
	}
	mustRun(topo.t, "", "", "cp", "/usr/local/share/criu-netfreeze/oci-hook.json", "/var/lib/containers/hooks.d/")
	mustRun(topo.t, "", "", "cp", trafficProgram, filepath.Join(rootfs, "traffic"))
	tarball := filepath.Join(e.dir, "image.tar")
	mustRun(topo.t, "", "", "tar", "-C", rootfs, "-cf", tarball, ".")
	e.must("import", tarball, trafficImage)
	e.must("network", "create", "--disable-dns", "--interface-name", e.bridge, "--ipv6",
		"--subnet", fmt.Sprintf("10.88.%d.0/24", topo.n), "--gateway", fmt.Sprintf("10.88.%d.254", topo.n),
		"--subnet", fmt.Sprintf("fd88:%x::/64", topo.n), "--gateway", fmt.Sprintf("fd88:%x::fe", topo.n), e.network)
	topo.t.Cleanup(func() { e.must("network", "rm", "--force", e.network) })
	return e
}

func (e *podmanEngine) conf() string { return filepath.Join(e.dir, "containers.conf") }

func (e *podmanEngine) run(args ...string) (string, error) {
	return runIn("", "", append([]string{"env", "CONTAINERS_CONF=" + e.conf(), "PODMAN_IGNORE_CGROUPSV1_WARNING=1", "podman"}, args...)...)
}

func (e *podmanEngine) must(args ...string) string {
	e.topo.t.Helper()
	out, err := e.run(args...)
	if err != nil {
		e.topo.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// net returns the options that connect a host.
func (e *podmanEngine) net(h *host) []string {
	return []string{"--network", e.network, "--ip", h.v4.String(), "--ip6", h.v6.String(), "--mac-address", h.mac}
}

// newPod creates and starts the next pod of a task: from then on its namespace
// is there, with its addresses.
func (e *podmanEngine) newPod(k *task) string {
	e.topo.t.Helper()
	e.births++
	name := fmt.Sprintf("%s-pod%d", k.id, e.births)
	e.must(append([]string{"pod", "create", "--name", name}, e.net(k.host)...)...)
	e.topo.t.Cleanup(func() { e.must("pod", "rm", "--force", "--ignore", "--time", "0", name) })
	e.must("pod", "start", name)
	return name
}

func (e *podmanEngine) start(k *task, args []string) {
	k.t.Helper()
	where := e.net(k.host)
	if e.pods {
		where = []string{"--pod", e.newPod(k)}
	}
	argv := append([]string{"run", "--detach", "--name", k.id, "--volume", filepath.Dir(k.data("x")) + ":/data"}, where...)
	argv = append(append(argv, trafficImage, "/traffic"), args...)
	e.must(append(argv, "--stats", "/data/stats", "--log", "/data/log")...)
	e.find(k)
}

// find looks up the container's pid, and with it its namespace.
func (e *podmanEngine) find(k *task) {
	k.t.Helper()
	pid, err := strconv.Atoi(e.must("inspect", "--format", "{{.State.Pid}}", k.id))
	if err != nil {
		k.t.Fatal(err)
	}
	k.pid = pid
	k.host.netns = fmt.Sprintf("/proc/%d/ns/net", pid)
}

func (e *podmanEngine) exported() string { return filepath.Join(e.dir, "checkpoint.tar") }

func (e *podmanEngine) dump(k *task, leaveRunning bool, options ...string) error {
	args := append([]string{"container", "checkpoint", "--tcp-established"}, options...)
	if leaveRunning {
		args = append(args, "--leave-running")
	}
	if e.pods {
		args = append(args, "--export", e.exported())
	}
	_, err := e.run(append(args, k.id)...)
	return err
}

func (e *podmanEngine) restore(k *task, options ...string) error {
	args := append([]string{"container", "restore", "--tcp-established"}, options...)
	if e.pods {
		args = append(args, "--import", e.exported())
	} else {
		args = append(args, k.id)
	}
	if _, err := e.run(args...); err != nil {
		return err
	}
	e.find(k)
	return nil
}

// remove ends the container, and its pod with it.
func (e *podmanEngine) remove(k *task) {
	k.t.Helper()
	e.must("rm", "--force", "--ignore", "--time", "0", k.id)
	if e.pods {
		e.must("pod", "rm", "--force", "--ignore", "--time", "0", fmt.Sprintf("%s-pod%d", k.id, e.births))
	}
}

// guard has resets from a host's addresses dropped in a node's namespace until
// the test's end, and checks that nothing is left then.
func guard(t *testing.T, node string, h *host) {
	t.Helper()
	for _, addr := range []string{h.v4.String(), h.v6.String()} {
		mustRun(t, node, "", netfreeze, "guard", addr, "--for", "10m")
	}
	list := mustRun(t, node, "", netfreeze, "guard", "--list")
	if !strings.Contains(list, h.v4.String()) || !strings.Contains(list, h.v6.String()) {
		t.Errorf("netfreeze guard --list does not list both addresses: %s", list)
	}
	if all := mustRun(t, node, "", netfreeze, "status"); !strings.Contains(all, h.v4.String()) || !strings.Contains(all, "guard") {
		t.Errorf("netfreeze status does not list the guard: %s", all)
	}
	t.Cleanup(func() {
		for _, addr := range []string{h.v4.String(), h.v6.String()} {
			mustRun(t, node, "", netfreeze, "guard", "--off", addr)
		}
		if tables := mustRun(t, node, "", "nft", "list", "tables"); strings.Contains(tables, "netfreeze") {
			t.Errorf("something is left in the node's namespace: %s", tables)
		}
	})
}

// TestPodman restores a container that podman gives a new namespace with the old
// address just before it calls the runtime. Only a guard in the node's namespace
// is in place early enough.
func TestPodman(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"})
	e := newPodman(newTopology(t), false)
	p := newCalledPair(e, e.bridge, e.topo.describeHost("app"), everyMillisecond)
	guard(t, "", p.app)
	for range 4 {
		if err := e.dump(p.dumped, false); err != nil {
			t.Fatal(err)
		}
		if err := e.restore(p.dumped); err != nil {
			t.Fatal(err)
		}
		p.awaitTraffic(2*patience, time.Now())
	}
	p.checkAllBytes()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
}

// TestPodmanPod restores a container into a new pod that has been there, with
// its address, for some time. The OCI hook freezes the pod when it is created;
// the guard covers the moment between podman's network set-up and the hook.
func TestPodmanPod(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"})
	for _, expected := range []bool{true, false} {
		t.Run(map[bool]string{true: "expected", false: "not expected"}[expected], func(t *testing.T) {
			e := newPodman(newTopology(t), true)
			p := newCalledPair(e, e.bridge, e.topo.describeHost("app"), everyMillisecond)
			if err := e.dump(p.dumped, false); err != nil {
				t.Fatal(err)
			}
			e.remove(p.dumped)
			if expected {
				expect(t, "--address", p.app.v4.String())
				guard(t, "", p.app)
			}
			pod := e.newPod(p.dumped)
			time.Sleep(live)
			err := e.restore(p.dumped, "--pod", pod)
			if !expected {
				seen := p.packets.since(p.from)
				if seen.rst == 0 {
					t.Error("no RST was captured")
				}
				t.Logf("%d RST at the peer, %d connections lost", seen.rst, p.client.broken())
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			p.frozenAtBirth(p.app.netns)
		})
	}
}
