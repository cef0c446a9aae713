// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// containerd is a daemon of its own for a test, with a registry and a CNI network.
type containerd struct {
	t   *testing.T
	dir string // configuration, socket
}

// The images: a sandbox needs a process that does nothing.
const (
	registry   = "localhost:5000"
	pauseImage = registry + "/pause:1"
	appImage   = registry + "/traffic:1"
)

// containerdConf asks for no control groups and for no changes of limits, which the lab
// cannot have.
const containerdConf = `version = 3
root = "/var/lib/containerd"
state = "%[1]s/state"
[grpc]
  address = "%[1]s/sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "` + pauseImage + `"
[plugins."io.containerd.cri.v1.runtime"]
  disable_cgroup = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "%[1]s/` + plainRunc + `"
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni", "` + "%[2]s" + `"]
    conf_dir = "%[1]s/cni"
`

// newContainerd starts the registry and containerd.
func newContainerd(t *testing.T) *containerd {
	t.Helper()
	c := &containerd{t: t, dir: t.TempDir()}
	linkPlainRunc(t, c.dir)
	c.write("config.toml", fmt.Sprintf(containerdConf, c.dir, filepath.Join(build, "dest", "opt", "cni", "bin")))
	crane := filepath.Join(build, "crane")
	startDaemon(t, c.dir, func() error {
		_, err := runIn("", "", crane, "catalog", "--insecure", registry)
		return err
	}, crane, "registry", "serve", "--address", registry)
	c.push(pauseImage, "/usr/bin/catatonit", "/catatonit,-P")
	c.push(appImage, trafficProgram, "/traffic")
	startDaemon(t, c.dir, func() error {
		_, err := c.crictl("info")
		return err
	}, "containerd", "--config", filepath.Join(c.dir, "config.toml"))
	c.must(t, "pull", appImage)
	return c
}

func (c *containerd) write(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// network makes the CRI's network one that gives h's addresses to every pod, and returns
// the name of its bridge. Our plugin is the first in its list.
func (c *containerd) network(h *host) string {
	t := h.topo.t
	t.Helper()
	bridge := networkOf(h.topo) + "-cni"
	c.write("cni/10-net.conflist", fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [%s,
		{"type": "bridge", "bridge": %q, "ipam": {"type": "static", "addresses": [{"address": "%s/24"}, {"address": "%s/64"}]}}]}`,
		networkOf(h.topo), netfreezePlugin(""), bridge, h.v4, h.v6))
	t.Cleanup(func() { _, _ = runIn("", "", "ip", "link", "del", bridge) })
	poll(t, patience, "containerd to read the network's configuration", func() error {
		out, err := c.crictl("info", "--output", "go-template", "--template", "{{.cniconfig}}")
		if err == nil && !strings.Contains(out, bridge) {
			err = fmt.Errorf("it has %s", out)
		}
		return err
	})
	return bridge
}

// push makes an image of one program.
func (c *containerd) push(image, program, entrypoint string) {
	t := c.t
	t.Helper()
	root := filepath.Join(c.dir, filepath.Base(program)+"-root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "", "", "cp", program, root)
	layer := root + ".tar"
	mustRun(t, "", "", "tar", "-C", root, "-cf", layer, ".")
	crane := filepath.Join(build, "crane")
	mustRun(t, "", "", crane, "append", "--insecure", "-f", layer, "-t", image)
	mustRun(t, "", "", crane, "mutate", "--insecure", "--entrypoint", entrypoint, image, "-t", image)
}

func (c *containerd) crictl(args ...string) (string, error) {
	endpoint := "unix://" + filepath.Join(c.dir, "sock")
	out, err := runIn("", "", append([]string{filepath.Join(build, "crictl"), "--config", os.DevNull, "--runtime-endpoint", endpoint, "--image-endpoint", endpoint}, args...)...)
	// Warnings come before the answer.
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1], err
}

func (c *containerd) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.crictl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// criEngine is containerd's CRI as the kubelet uses it, by crictl: each container is
// alone in a pod, is dumped to an archive, and restored from that into another pod.
type criEngine struct {
	*containerd
	pods       map[*task]string
	containers map[*task]string
	attempts   int
}

func newCRI(c *containerd) *criEngine {
	return &criEngine{containerd: c, pods: map[*task]string{}, containers: map[*task]string{}}
}

func (e *criEngine) String() string { return "cri" }

// pod is the name of a task's pod.
func (e *criEngine) pod(k *task) string { return "shop/" + k.id }

func (e *criEngine) archive(k *task) string { return filepath.Join(k.dir, "checkpoint.tar") }

// file writes a request for crictl.
func (e *criEngine) file(k *task, name string, request map[string]any) string {
	k.t.Helper()
	text, err := json.Marshal(request)
	path := filepath.Join(k.dir, name)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return path
}

// run starts a pod and, in it, a container from an image or an archive.
func (e *criEngine) run(k *task, image string, args []string) error {
	k.t.Helper()
	e.attempts++
	sandbox := e.file(k, "pod.json", map[string]any{
		"metadata":      map[string]any{"name": k.id, "namespace": "shop", "uid": fmt.Sprint("uid", e.attempts), "attempt": e.attempts},
		"log_directory": k.dir, "linux": map[string]any{},
	})
	container := e.file(k, "container.json", map[string]any{
		"metadata": map[string]any{"name": "app"}, "image": map[string]any{"image": image}, "args": args, "log_path": "app.log",
		"mounts": []any{map[string]any{"container_path": "/data", "host_path": filepath.Dir(k.data("x"))}},
		"linux":  map[string]any{},
	})
	var err error
	if e.pods[k], err = e.crictl("runp", sandbox); err != nil {
		return err
	}
	if e.containers[k], err = e.crictl("create", e.pods[k], container, sandbox); err != nil {
		return err
	}
	if _, err = e.crictl("start", e.containers[k]); err != nil {
		return err
	}
	return e.locate(k, e.containers[k])
}

// locate looks up a container's pid, and with it its namespace.
func (e *criEngine) locate(k *task, container string) error {
	pid, err := e.crictl("inspect", "--output", "go-template", "--template", "{{.info.pid}}", container)
	if err != nil {
		return err
	}
	if k.pid, err = strconv.Atoi(pid); err != nil {
		return err
	}
	k.host.netns = fmt.Sprintf("/proc/%d/ns/net", k.pid)
	return nil
}

func (e *criEngine) start(k *task, args []string) {
	k.t.Helper()
	if err := e.run(k, appImage, append(args, "--stats", "/data/stats", "--log", "/data/log")); err != nil {
		k.t.Fatal(err)
	}
}

// dump always leaves the task running: the CRI knows nothing else.
func (e *criEngine) dump(k *task, _ bool, _ ...string) error {
	_, err := e.crictl("checkpoint", "--export="+e.archive(k), e.containers[k])
	return err
}

func (e *criEngine) restore(k *task, _ ...string) error {
	k.t.Helper()
	return e.run(k, e.archive(k), nil)
}

// remove removes the pod. Like the kubelet it tries again: containerd can fail to stop
// a container that ends at the same moment.
func (e *criEngine) remove(k *task) {
	k.t.Helper()
	if e.pods[k] == "" {
		return
	}
	poll(k.t, patience, "removal of the pod", func() error {
		_, err := e.crictl("rmp", "--force", e.pods[k])
		return err
	})
	e.pods[k] = ""
}

// ctrEngine is ctr, containerd's own command: a container is given a namespace that is
// there, and restored into it.
type ctrEngine struct{ *containerd }

func (ctrEngine) String() string { return "ctr" }

func (e ctrEngine) ctr(args ...string) (string, error) {
	out, err := runIn("", "", append([]string{"ctr", "--address", filepath.Join(e.dir, "sock")}, args...)...)
	return strings.TrimSpace(out), err
}

func (e ctrEngine) start(k *task, args []string) {
	k.t.Helper()
	argv := []string{
		"run", "--detach", "--runc-binary", filepath.Join(e.dir, plainRunc), "--with-ns", "network:" + netnsPath(k.host.netns),
		"--mount", "type=bind,src=" + filepath.Dir(k.data("x")) + ",dst=/data,options=rbind:rw", appImage, k.id, "/traffic",
	}
	argv = append(append(argv, args...), "--stats", "/data/stats", "--log", "/data/log")
	_, err := e.ctr("images", "pull", "--plain-http", appImage)
	if err == nil {
		_, err = e.ctr(argv...)
	}
	if err == nil {
		err = e.find(k)
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

// find looks up the task's pid.
func (e ctrEngine) find(k *task) error {
	out, err := e.ctr("tasks", "list")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == k.id {
			k.pid, err = strconv.Atoi(f[1])
			return err
		}
	}
	return fmt.Errorf("there is no task %s: %s", k.id, out)
}

// dump makes a checkpoint of the running task. ctr pauses it meanwhile, and complains
// at the end if the policy has ended it: the checkpoint is complete then.
func (e ctrEngine) dump(k *task, _ bool, _ ...string) error {
	out, err := e.ctr("containers", "checkpoint", "--task", "--rw", k.id, k.id+"-image")
	if err != nil && !strings.Contains(out, "cannot resume a stopped container") {
		return err
	}
	return nil
}

func (e ctrEngine) restore(k *task, _ ...string) error {
	if out, err := e.ctr("containers", "restore", "--live", k.id, k.id+"-image"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if _, err := e.ctr("images", "remove", k.id+"-image"); err != nil {
		return err
	}
	return e.find(k)
}

func (e ctrEngine) remove(k *task) {
	k.t.Helper()
	_, _ = e.ctr("tasks", "remove", "--force", k.id) // reports how the task has ended
	if out, err := e.ctr("containers", "remove", k.id); err != nil && !strings.Contains(out, "not found") {
		k.t.Error(err)
	}
}

// TestCtr has ctr checkpoint a task and restore it in the same namespace.
func TestCtr(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("runc"))
	p := newHosts(t)
	e := ctrEngine{newContainerd(t)}
	p.start(t, e, true, everyMillisecond)
	for range 3 {
		p.dump()
		p.dumped.awaitEnd()
		e.remove(p.dumped)
		if err := e.restore(p.dumped); err != nil {
			t.Fatal(err)
		}
		p.awaitBoth(time.Now())
	}
	p.checkUnharmed(time.Now())
}

// TestContainerdCRI has containerd checkpoint a container as the kubelet has it done,
// and restore it from the archive into a new pod with the same address.
func TestContainerdCRI(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("runc"))
	e := newCRI(newContainerd(t))
	h := newTopology(t).describeHost("app")
	p := newCalledPair(e, e.network(h), h, everyMillisecond)
	for range 3 {
		if err := e.dump(p.dumped, true); err != nil {
			t.Fatal(err)
		}
		p.dumped.awaitEnd()
		e.remove(p.dumped)
		expect(t, "--pod", e.pod(p.dumped))
		if err := e.restore(p.dumped); err != nil {
			t.Fatal(err)
		}
		p.awaitBoth(time.Now())
	}
	p.checkAllBytes()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
}
