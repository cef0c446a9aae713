// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/criu-netfreeze/criu-netfreeze/e2e/internal/pages"
)

// A recipe is a name, and a start and a move of a container, in a page of docs/: the
// block of code below a comment "recipe NAME start" or "recipe NAME move".

// readRecipes returns the code of each recipe's parts, by "NAME PART".
func readRecipes(t *testing.T, page string) map[string]string {
	t.Helper()
	parts, _ := readPage(t, page, pages.Recipe)
	return parts
}

// kitchen is where a recipe runs: the address that it names, a network by the caller's
// own name for it, and a peer on the same bridge.
type kitchen struct {
	shell
	topo *topology
	app  *host
	peer *host
}

// The address and the MAC address in the recipes.
var recipeAddress, recipeMAC = netip.MustParseAddr("10.88.0.7"), "02:00:00:00:00:07"

func newKitchen(t *testing.T) *kitchen {
	t.Helper()
	topo := newTopology(t)
	k := &kitchen{shell: shell{t: t, dir: t.TempDir()}, topo: topo, app: topo.describeHost("app"), peer: topo.describeHost("peer")}
	k.app.v4, k.app.mac, k.peer.v4 = recipeAddress, recipeMAC, recipeAddress.Next()
	k.peer.netns = topo.newNetns("peer")
	k.replace("PROGRAM", trafficProgram+" "+strings.Join(recipeArgs[:4], " ")+" /srv/stats")
	clean := func() {
		for _, left := range []string{"web", "web.tar", "images", "pid", "stats"} {
			if err := os.RemoveAll(filepath.Join("/srv", left)); err != nil {
				t.Error(err)
			}
		}
	}
	clean()
	t.Cleanup(clean)
	return k
}

// recipeArgs are the arguments of the program in the images.
var recipeArgs = []string{"serve", "--listen", "0.0.0.0:7000", "--stats", "/stats"}

func (k *kitchen) replace(pairs ...string) { k.fill = strings.NewReplacer(pairs...) }

// plug connects the peer to the caller's bridge.
func (k *kitchen) plug(bridge string) {
	k.t.Helper()
	port := networkOf(k.topo) + "-peer"
	k.topo.ip("", fmt.Sprintf("link add %s type veth peer name %s address %s netns %s", port, iface, k.peer.mac, k.peer.netns),
		fmt.Sprintf("link set %s master %s up", port, bridge))
	k.topo.ip(k.peer.netns, fmt.Sprintf("addr add %s/24 dev %s", k.peer.v4, iface), "link set "+iface+" up")
}

// namespace makes the network namespace "web", with the address, and the peer's.
func (k *kitchen) namespace() {
	k.t.Helper()
	bridge := networkOf(k.topo) + "-br"
	k.topo.ip("", "link add "+bridge+" type bridge", "link set "+bridge+" up")
	k.t.Cleanup(func() { _, _ = runIn("", "", "ip", "link", "del", bridge) })
	k.app.netns = "web"
	mustRun(k.t, "", "", "ip", "netns", "add", "web")
	k.t.Cleanup(func() { mustRun(k.t, "", "", "ip", "netns", "del", "web") })
	port := networkOf(k.topo) + "-web"
	k.topo.ip("", fmt.Sprintf("link add %s type veth peer name %s address %s netns web", port, iface, recipeMAC),
		fmt.Sprintf("link set %s master %s up", port, bridge))
	k.topo.ip("web", fmt.Sprintf("addr add %s/24 dev %s", recipeAddress, iface), "link set "+iface+" up", "link set lo up")
	k.plug(bridge)
}

// serve follows a recipe: it starts the container, connects a client, moves the
// container, and checks that the client's connections go on.
func (k *kitchen) serve(start, move string) {
	t := k.t
	t.Helper()
	if start == "" || move == "" {
		t.Fatal("the page has no such recipe")
	}
	k.must(start)
	poll(t, patience, "the server", func() error {
		return within(k.peer.netns, func() error { return dialOnce(fmt.Sprintf("%s:7000", recipeAddress)) })
	})
	client := newTask(t, plainCRIU{}, k.peer, "connect", "--peer", fmt.Sprintf("%s:7000", recipeAddress),
		"--conn", "push,interval=2ms", "--conn", "reqrep,interval=2ms")
	flowing := func(limit time.Duration, after time.Time) {
		t.Helper()
		poll(t, limit, "traffic", func() error {
			if err := client.healthy(); err != nil {
				return err
			}
			all := client.stats.Snapshots()
			if len(all) != 2 {
				return fmt.Errorf("%d connections", len(all))
			}
			for _, s := range all {
				if s.LastAt <= after.UnixNano() {
					return fmt.Errorf("connection %d is silent", s.ID)
				}
			}
			return nil
		})
	}
	flowing(patience, time.Now())
	packets := startCapture(t, k.peer.netns, iface)
	from := time.Now()
	k.must(move)
	flowing(bothWays, time.Now())
	if err := packets.since(from).stray(); err != nil {
		t.Error(err)
	}
	if all := mustRun(t, "", "", netfreeze, "status"); strings.Contains(all, "netns ") {
		t.Errorf("something is left:\n%s", all)
	}
}

// bundle makes an OCI bundle in /srv/web, for a container in the namespace "web".
func (k *kitchen) bundle() {
	k.t.Helper()
	const root = "/srv/web/rootfs"
	spec, err := json.Marshal(specs.Spec{
		Version: "1.0.2", Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: append([]string{"/traffic"}, recipeArgs...), Cwd: "/"},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{CgroupsPath: "/web", Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace},
			{Type: specs.MountNamespace},
			{Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace},
			{Type: specs.NetworkNamespace, Path: "/run/netns/web"},
		}},
	})
	for _, dir := range []string{"proc", "dev", "tmp"} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	if err = errors.Join(err, os.WriteFile("/srv/web/config.json", spec, 0o600)); err != nil {
		k.t.Fatal(err)
	}
	mustRun(k.t, "", "", "cp", trafficProgram, root)
}

// layer makes a tar archive of an image's file system.
func (k *kitchen) layer() string {
	k.t.Helper()
	root := filepath.Join(k.dir, "layer")
	if err := os.Mkdir(root, 0o755); err != nil {
		k.t.Fatal(err)
	}
	mustRun(k.t, "", "", "cp", trafficProgram, "/usr/bin/catatonit", root)
	mustRun(k.t, "", "", "tar", "-C", root, "-cf", root+".tar", ".")
	return root + ".tar"
}

// entrypoint is what podman and docker call a change of an image.
func entrypoint(argv ...string) string {
	text, _ := json.Marshal(argv)
	return "ENTRYPOINT " + string(text)
}

// TestRecipes follows the recipes of the documentation.
func TestRecipes(t *testing.T) {
	callers, podman := readRecipes(t, "callers.md"), readRecipes(t, "podman.md")
	both := []engine{runtimeEngine("runc"), runtimeEngine("crun")}
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			withNetfreeze(t, settings{policy: "kill"}, both...)
			k := newKitchen(t)
			k.namespace()
			k.bundle()
			t.Cleanup(func() { _, _ = runIn("", "", runtime, "delete", "--force", "web") })
			k.serve(callers[runtime+" start"], callers[runtime+" move"])
		})
	}
	t.Run("criu", func(t *testing.T) {
		withNetfreeze(t, settings{policy: "kill"}, plainCRIU{})
		k := newKitchen(t)
		k.namespace()
		t.Cleanup(func() { _, _ = runIn("", "", "sh", "-c", "kill -9 $(cat /srv/pid)") })
		k.serve(callers["criu start"], callers["criu move"])
	})
	t.Run("beside others", func(t *testing.T) {
		withNetfreeze(t, settings{policy: "kill"}, plainCRIU{})
		k := newKitchen(t)
		k.namespace()
		other := "/usr/local/bin/other-script"
		log := filepath.Join(k.dir, "log")
		if err := os.WriteFile(other, []byte("#!/bin/sh\necho \"$CRTOOLS_SCRIPT_ACTION\" >>"+log+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(other) })
		t.Cleanup(func() { _, _ = runIn("", "", "sh", "-c", "kill -9 $(cat /srv/pid)") })
		k.must(callers["beside configuration"])
		k.serve(callers["criu start"], callers["criu move"])
		if text, _ := os.ReadFile(log); !bytes.Contains(text, []byte("post-dump")) || !bytes.Contains(text, []byte("post-resume")) {
			t.Errorf("the other script was called for %s", text)
		}
	})
	t.Run("ctr", func(t *testing.T) {
		withNetfreeze(t, settings{policy: "kill"}, both...)
		c := newContainerd(t)
		k := newKitchen(t)
		k.namespace()
		k.env = []string{"CONTAINERD_ADDRESS=" + filepath.Join(c.dir, "sock")}
		k.program("ctr", fmt.Sprintf(`if [ "$1" = run ]; then shift; set -- run --runc-binary %s "$@"; fi; exec /usr/bin/ctr "$@"`, filepath.Join(c.dir, plainRunc)))
		image := registry + "/recipe:1"
		c.push(image, trafficProgram, "/traffic,"+strings.Join(recipeArgs, ","))
		k.replace("IMAGE", image)
		e := ctrEngine{c}
		if _, err := e.ctr("images", "pull", "--plain-http", image); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_, _ = e.ctr("tasks", "remove", "--force", "web")
			_, _ = e.ctr("containers", "remove", "web")
			_, _ = e.ctr("images", "remove", "moved")
		})
		k.serve(callers["ctr start"], callers["ctr move"])
	})
	t.Run("cri", func(t *testing.T) {
		withNetfreeze(t, settings{policy: "kill"}, both...)
		c := newContainerd(t)
		k := newKitchen(t)
		bridge := c.network(k.app)
		endpoint := "unix://" + filepath.Join(c.dir, "sock")
		k.program("crictl", fmt.Sprintf(`exec %s/crictl --config /dev/null --runtime-endpoint %s --image-endpoint %[2]s "$@"`, build, endpoint))
		for name, text := range map[string]string{
			"pod.json":       `{"metadata": {"name": "web", "namespace": "shop", "uid": "1"}, "log_directory": "` + k.dir + `", "linux": {}}`,
			"container.json": `{"metadata": {"name": "app"}, "image": {"image": "` + appImage + `"}, "args": ["` + strings.Join(recipeArgs, `", "`) + `"], "linux": {}}`,
		} {
			if err := os.WriteFile(filepath.Join(k.dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			_, _ = runIn("", "", netfreeze, "expect", "--pod", "shop/web", "--cancel")
			for pod := range strings.FieldsSeq(c.must(t, "pods", "--quiet")) {
				c.must(t, "rmp", "--force", pod)
			}
		})
		k.must(callers["cri start"])
		k.plug(bridge) // which the first pod has made
		k.serve(":", callers["cri move"])
	})
	t.Run("docker", func(t *testing.T) {
		withNetfreeze(t, settings{policy: "kill"}, both...)
		e := newDocker(t)
		k := newKitchen(t)
		k.env = []string{"DOCKER_HOST=unix://" + e.socket()}
		k.replace("IMAGE", "recipe:1", "PAUSE", "pause:1")
		layer := k.layer()
		e.must(t, "import", "--change", entrypoint(append([]string{"/traffic"}, recipeArgs...)...), layer, "recipe:1")
		e.must(t, "import", "--change", entrypoint("/catatonit", "-P"), layer, "pause:1")
		e.must(t, "network", "create", "--opt", "com.docker.network.bridge.name=docker-web",
			"--subnet", "10.88.0.0/24", "--gateway", "10.88.0.254", "web")
		t.Cleanup(func() { e.must(t, "network", "rm", "web") })
		t.Cleanup(func() { e.must(t, "rm", "--force", "web", "net") })
		k.plug("docker-web")
		k.serve(callers["docker start"], callers["docker move"])
	})
	for name, parts := range map[string]map[string]string{"podman": callers, "podman-in-place": podman, "podman-pod": podman} {
		t.Run(name, func(t *testing.T) {
			withNetfreeze(t, settings{policy: "kill"}, both...)
			k := newKitchen(t)
			e := newPodman(k.topo, false)
			k.program("podman", fmt.Sprintf(`CONTAINERS_CONF=%s PODMAN_IGNORE_CGROUPSV1_WARNING=1 exec /usr/bin/podman "$@"`, e.conf()))
			k.replace("IMAGE", "localhost/recipe:1")
			e.must("import", "--change", entrypoint(append([]string{"/traffic"}, recipeArgs...)...), k.layer(), "localhost/recipe:1")
			e.must("network", "create", "--disable-dns", "--interface-name", "podman-web", "--subnet", "10.88.0.0/24", "--gateway", "10.88.0.254", "net")
			t.Cleanup(func() {
				e.must("network", "rm", "--force", "net")
				_, _ = runIn("", "", "ip", "link", "del", "podman-web") // the peer's port may keep it
			})
			t.Cleanup(func() {
				e.must("pod", "rm", "--all", "--force", "--time", "0")
				e.must("rm", "--all", "--force", "--time", "0")
				_, _ = runIn("", "", netfreeze, "guard", "--off", recipeAddress.String())
				_, _ = runIn("", "", netfreeze, "expect", "--address", recipeAddress.String(), "--cancel")
			})
			k.must(parts[name+" start"])
			k.plug("podman-web") // which the first container has made
			k.serve(":", parts[name+" move"])
		})
	}
}
