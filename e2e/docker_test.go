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

// dockerEngine is a docker daemon of its own for a test. It restores only into the
// network namespace of another container, which is why each task has one that does
// nothing but keep its namespace.
type dockerEngine struct {
	t   *testing.T
	dir string
}

func (*dockerEngine) String() string { return "docker" }

// newDocker starts the daemon, and makes an image.
func newDocker(t *testing.T) *dockerEngine {
	t.Helper()
	e := &dockerEngine{t: t, dir: t.TempDir()}
	conf, err := json.Marshal(map[string]any{
		"experimental": true, // checkpoints
		"hosts":        []string{"unix://" + e.socket()}, "pidfile": filepath.Join(e.dir, "pid"),
		"data-root": "/var/lib/docker", "exec-root": filepath.Join(e.dir, "exec"),
		"bridge": "none", "iptables": false, "ip6tables": false,
		"default-runtime": "plain", "exec-opts": []string{"native.cgroupdriver=cgroupfs"},
		"runtimes": map[string]any{"plain": map[string]any{"path": linkPlainRunc(t, e.dir)}},
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(e.dir, "daemon.json"), conf, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	startDaemon(t, e.dir, func() error {
		_, err := e.run("version")
		return err
	}, "dockerd", "--config-file", filepath.Join(e.dir, "daemon.json"))
	root := filepath.Join(e.dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "", "", "cp", trafficProgram, "/usr/bin/catatonit", root)
	mustRun(t, "", "", "tar", "-C", root, "-cf", root+".tar", ".")
	e.must(t, "import", root+".tar", trafficImage)
	return e
}

// network makes the network of a topology, and returns the name of its bridge.
func (e *dockerEngine) network(topo *topology) string {
	topo.t.Helper()
	bridge := networkOf(topo) + "-docker"
	e.must(topo.t, "network", "create", "--ipv6", "--opt", "com.docker.network.bridge.name="+bridge,
		"--subnet", fmt.Sprintf("10.88.%d.0/24", topo.n), "--gateway", fmt.Sprintf("10.88.%d.254", topo.n),
		"--subnet", fmt.Sprintf("fd88:%x::/64", topo.n), "--gateway", fmt.Sprintf("fd88:%x::fe", topo.n), networkOf(topo))
	topo.t.Cleanup(func() { e.must(topo.t, "network", "rm", networkOf(topo)) })
	return bridge
}

func (e *dockerEngine) socket() string { return filepath.Join(e.dir, "sock") }

func (e *dockerEngine) run(args ...string) (string, error) {
	out, err := runIn("", "", append([]string{"docker", "--host", "unix://" + e.socket()}, args...)...)
	return strings.TrimSpace(out), err
}

func (e *dockerEngine) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := e.run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// keeper is the container that keeps a task's network namespace.
func (e *dockerEngine) keeper(k *task) string { return k.id + "-net" }

func (e *dockerEngine) start(k *task, args []string) {
	k.t.Helper()
	e.must(k.t, "run", "--detach", "--name", e.keeper(k), "--network", networkOf(k.host.topo), "--ip", k.host.v4.String(), "--ip6", k.host.v6.String(),
		"--mac-address", k.host.mac, trafficImage, "/catatonit", "-P")
	k.t.Cleanup(func() { e.must(k.t, "rm", "--force", e.keeper(k)) })
	argv := []string{
		"run", "--detach", "--name", k.id, "--network", "container:" + e.keeper(k), "--security-opt", "seccomp=unconfined",
		"--volume", filepath.Dir(k.data("x")) + ":/data", trafficImage, "/traffic",
	}
	e.must(k.t, append(append(argv, args...), "--stats", "/data/stats", "--log", "/data/log")...)
	e.find(k)
}

// find looks up the container's pid, and with it its namespace.
func (e *dockerEngine) find(k *task) {
	k.t.Helper()
	pid, err := strconv.Atoi(e.must(k.t, "inspect", "--format", "{{.State.Pid}}", k.id))
	if err != nil {
		k.t.Fatal(err)
	}
	k.pid = pid
	k.host.netns = fmt.Sprintf("/proc/%s/ns/net", e.must(k.t, "inspect", "--format", "{{.State.Pid}}", e.keeper(k)))
}

// checkpoint is the name of the only checkpoint of a container.
const checkpoint = "last"

func (e *dockerEngine) dump(k *task, leaveRunning bool, _ ...string) error {
	args := []string{"checkpoint", "create"}
	if leaveRunning {
		args = append(args, "--leave-running")
	}
	_, err := e.run(append(args, k.id, checkpoint)...)
	return err
}

// restore tries again while containerd has yet to drop its own copy of the images, which
// it made for the checkpoint: docker 28 takes that for an error.
func (e *dockerEngine) restore(k *task, _ ...string) error {
	k.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		_, err := e.run("start", "--checkpoint", checkpoint, k.id)
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "already exists") || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	_, err := e.run("checkpoint", "rm", k.id, checkpoint)
	e.find(k)
	return err
}

func (e *dockerEngine) remove(k *task) {
	k.t.Helper()
	e.must(k.t, "rm", "--force", k.id)
}

// stopped waits until docker knows that a container has ended.
func (e *dockerEngine) stopped(k *task) {
	k.t.Helper()
	poll(k.t, patience, "docker to see the end of "+k.id, func() error {
		if state, err := e.run("inspect", "--format", "{{.State.Status}}", k.id); err != nil || state != "exited" {
			return fmt.Errorf("it is %s: %w", state, err)
		}
		return nil
	})
}

// TestDocker has docker checkpoint a container that uses another one's network, and
// restore it there: both if docker has CRIU end the tasks, and if the policy does so.
func TestDocker(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("runc"))
	e := newDocker(t)
	for _, leaveRunning := range []bool{false, true} {
		t.Run(map[bool]string{false: "CRIU ends", true: "policy ends"}[leaveRunning], func(t *testing.T) {
			topo := newTopology(t)
			p := newCalledPair(e, e.network(topo), topo.describeHost("app"), everyMillisecond)
			if err := e.dump(p.dumped, leaveRunning); err != nil {
				t.Fatal(err)
			}
			p.dumped.awaitEnd()
			e.stopped(p.dumped)
			p.restoreThere()
		})
	}
}
