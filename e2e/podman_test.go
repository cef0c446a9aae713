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
	w       *world
	dir     string // configuration and exported checkpoints
	network string
	bridge  string
	pods    bool // each container is alone in a pod, and comes back in another one
	births  int
}

func (e *podmanEngine) String() string { return "podman" }

// podmanConf keeps podman's files where the lab can be written to, and asks for
// no more than the lab's control groups have. Its default network makes room for
// the worlds' addresses.
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

// newPodman makes an image of the traffic program and a network, and installs
// our hook where podman looks for hooks, as the README says.
func newPodman(w *world, pods bool) *podmanEngine {
	w.t.Helper()
	e := &podmanEngine{
		w: w, dir: w.t.TempDir(), pods: pods,
		network: fmt.Sprintf("w%d-net", w.n), bridge: fmt.Sprintf("w%d-podman", w.n),
	}
	rootfs := filepath.Join(e.dir, "rootfs")
	for _, dir := range []string{rootfs, "/var/lib/containers/networks", "/var/lib/containers/hooks.d"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := os.WriteFile(e.conf(), []byte(podmanConf), 0o600); err != nil {
		w.t.Fatal(err)
	}
	mustRun(w.t, "", "", "cp", "/usr/local/share/criu-netfreeze/oci-hook.json", "/var/lib/containers/hooks.d/")
	mustRun(w.t, "", "", "cp", trafficProgram, filepath.Join(rootfs, "traffic"))
	tarball := filepath.Join(e.dir, "image.tar")
	mustRun(w.t, "", "", "tar", "-C", rootfs, "-cf", tarball, ".")
	e.must("import", tarball, trafficImage)
	e.must("network", "create", "--disable-dns", "--interface-name", e.bridge, "--ipv6",
		"--subnet", fmt.Sprintf("10.88.%d.0/24", w.n), "--gateway", fmt.Sprintf("10.88.%d.254", w.n),
		"--subnet", fmt.Sprintf("fd88:%x::/64", w.n), "--gateway", fmt.Sprintf("fd88:%x::fe", w.n), e.network)
	w.t.Cleanup(func() { e.must("network", "rm", "--force", e.network) })
	return e
}

func (e *podmanEngine) conf() string { return filepath.Join(e.dir, "containers.conf") }

func (e *podmanEngine) run(args ...string) (string, error) {
	return runIn("", "", append([]string{"env", "CONTAINERS_CONF=" + e.conf(), "PODMAN_IGNORE_CGROUPSV1_WARNING=1", "podman"}, args...)...)
}

func (e *podmanEngine) must(args ...string) string {
	e.w.t.Helper()
	out, err := e.run(args...)
	if err != nil {
		e.w.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// net are the options that connect a host.
func (e *podmanEngine) net(h *host) []string {
	return []string{"--network", e.network, "--ip", h.v4.String(), "--ip6", h.v6.String(), "--mac-address", h.mac}
}

// newPod makes the pod that a task lives in next, and starts it: its
// namespace is there from now on, with its addresses.
func (e *podmanEngine) newPod(k *task) string {
	e.w.t.Helper()
	e.births++
	name := fmt.Sprintf("%s-pod%d", k.id, e.births)
	e.must(append([]string{"pod", "create", "--name", name}, e.net(k.host)...)...)
	e.w.t.Cleanup(func() { e.must("pod", "rm", "--force", "--ignore", "--time", "0", name) })
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

// find looks up where the container runs.
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

// newPodmanPair is newPair with a server that podman runs, and a peer that is
// cabled to podman's bridge.
func newPodmanPair(e *podmanEngine) *pair {
	w := e.w
	w.t.Helper()
	p := &pair{app: w.describeHost("app"), peer: w.describeHost("peer")}
	p.server = serve(w.t, e, p.app)
	p.peer.netns = w.newNetns("peer")
	port := fmt.Sprintf("w%d-port", w.n)
	w.ip("", fmt.Sprintf("link add %s type veth peer name %s address %s netns %s", port, iface, p.peer.mac, p.peer.netns),
		fmt.Sprintf("link set %s master %s up", port, e.bridge))
	w.ip(p.peer.netns,
		fmt.Sprintf("addr add %s/24 dev %s", p.peer.v4, iface), fmt.Sprintf("addr add %s/64 dev %s nodad", p.peer.v6, iface),
		"link set "+iface+" up")
	p.client = connect(w.t, plainCRIU{}, p.peer, p.app, everyMillisecond)
	p.dumped = p.server
	p.progress(patience, time.Now())
	p.packets = startCapture(w.t, p.peer.netns, iface)
	p.from = time.Now()
	return p
}

// guard drops resets from a host's addresses in a node's namespace, until the
// test's end; then nothing is left of that.
func guard(t *testing.T, node string, h *host) {
	t.Helper()
	for _, addr := range []string{h.v4.String(), h.v6.String()} {
		mustRun(t, node, "", netfreeze, "guard", addr, "--for", "10m")
	}
	list := mustRun(t, node, "", netfreeze, "guard", "--list")
	if !strings.Contains(list, h.v4.String()) || !strings.Contains(list, h.v6.String()) {
		t.Errorf("netfreeze guard --list says %s", list)
	}
	if all := mustRun(t, node, "", netfreeze, "status"); !strings.Contains(all, h.v4.String()) || !strings.Contains(all, "guard") {
		t.Errorf("netfreeze status says %s", all)
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

// TestPodman restores containers that podman gives a fresh namespace and their
// old address just before it calls the runtime. Only a guard in the node's
// namespace is there early enough.
func TestPodman(t *testing.T) {
	withSuite(t, settings{policy: "kill"})
	e := newPodman(newWorld(t), false)
	p := newPodmanPair(e)
	guard(t, "", p.app)
	for range 4 {
		if err := e.dump(p.dumped, false); err != nil {
			t.Fatal(err)
		}
		if err := e.restore(p.dumped); err != nil {
			t.Fatal(err)
		}
		p.progress(2*patience, time.Now())
	}
	p.settle()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
}

// TestPodmanPod restores a container into a new pod that has been there, with
// its address, for some time. The OCI hook freezes the pod when it is made, the
// guard covers the moment between podman's network and the hook.
func TestPodmanPod(t *testing.T) {
	withSuite(t, settings{policy: "kill"})
	for _, expected := range []bool{true, false} {
		t.Run(map[bool]string{true: "expected", false: "not expected"}[expected], func(t *testing.T) {
			e := newPodman(newWorld(t), true)
			p := newPodmanPair(e)
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
