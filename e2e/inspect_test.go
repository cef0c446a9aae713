// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/inspect"
)

// queued has connections whose buffers are full, and others.
var queued = []string{"bulk=2,slow,size=65536,interval=1ms", "reqrep", "push"}

// inspected is what netfreeze says of the only checkpoint at a path.
func inspected(t *testing.T, path string, args ...string) *inspect.Checkpoint {
	t.Helper()
	out := mustRun(t, "", "", append([]string{netfreeze, "inspect", path, "-o", "json"}, args...)...)
	var r inspect.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Checkpoints) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return r.Checkpoints[0]
}

// refused has netfreeze compare a checkpoint with a namespace in which it cannot be
// restored, and looks for what it says.
func refused(t *testing.T, path, netns string, want ...string) {
	t.Helper()
	out, err := runIn("", "", netfreeze, "inspect", path, "--target", netns)
	if err == nil {
		t.Errorf("it says that a restore in %s is possible:\n%s", netns, out)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("it does not say %q:\n%s", w, out)
		}
	}
}

// queues is what is in the queues of each connection of a namespace, by the kernel and
// ss(8): received, then sent.
func queues(t *testing.T, netns string) map[string][2]int {
	t.Helper()
	found := map[string][2]int{}
	for line := range strings.Lines(mustRun(t, netns, "", "ss", "-Htn")) {
		var (
			state, local, remote string
			in, out              int
		)
		if _, err := fmt.Sscan(line, &state, &in, &out, &local, &remote); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		found[local+" "+remote] = [2]int{in, out}
	}
	return found
}

// checkQueues compares the connections in a checkpoint with those of the held tree that
// was dumped: nothing has moved since, and nothing is sent.
func checkQueues(t *testing.T, netns string, c *inspect.Checkpoint) {
	t.Helper()
	kernel := queues(t, netns)
	full := 0
	for _, conn := range c.Connections {
		want, ok := kernel[conn.Local.String()+" "+conn.Remote.String()]
		if got := [2]int{conn.ReceiveQueue, conn.SendQueue}; !ok || got != want || conn.Problem != "" {
			t.Errorf("%+v: the kernel has %v (%v)", conn, want, ok)
		}
		if conn.ReceiveQueue+conn.SendQueue > 10_000 {
			full++
		}
		if conn.State != "ESTAB" || conn.MSS < 1000 || !strings.Contains(strings.Join(conn.Options, " "), "sack timestamps") {
			t.Errorf("%+v", conn)
		}
	}
	if len(c.Connections) != 8 || len(kernel) != 8 || full == 0 {
		t.Errorf("%d connections, the kernel has %d; %d have full queues", len(c.Connections), len(kernel), full)
	}
}

// TestInspect inspects real checkpoints: what it says of them is what the kernel says of
// the held tasks, and what it says of namespaces is what then happens there.
func TestInspect(t *testing.T) {
	for _, e := range []engine{plainCRIU{}, runtimeEngine("runc")} {
		t.Run(e.String(), func(t *testing.T) {
			withNetfreeze(t, settings{policy: "hold"}, e)
			p := newPair(t, e, true, queued)
			p.dump()
			p.dumped.awaitStop()
			images := p.dumped.images()
			c := inspected(t, images)
			checkQueues(t, p.app.netns, c)
			if c.Needs.NetNS != "external" || !c.Needs.TCPEstablished || len(c.Needs.Addresses) != 2 || c.Needs.Ports[0] != "tcp/7000" {
				t.Errorf("it needs %+v", c.Needs)
			}
			if o := c.Origin; o.FrozenUS == 0 || time.Since(o.Time) > time.Minute || !strings.HasPrefix(o.CRIUVersion, "4.") {
				t.Errorf("the dump: %+v", o)
			}
			if len(c.Tasks) != 1 || c.Tasks[0].Comm != "traffic" {
				t.Errorf("tasks: %+v", c.Tasks)
			}
			refused(t, images, p.app.netns, "is still open", "netfreeze kill", "NF502", ":7000 is taken", "NF507")

			mustRun(t, "", "", netfreeze, "kill", fmt.Sprint(p.dumped.pid))
			p.dumped.awaitEnd()
			e.remove(p.dumped)
			if c := inspected(t, images, "--target", p.app.netns); !c.Target.Restorable {
				t.Errorf("in the namespace that it came from: %+v", c.Target)
			}
			next := p.app.nextNetns(freeze(t))
			refused(t, images, next, p.app.v4.String()+" is missing", p.app.v6.String()+" is missing", "NF501")
			p.app.move(next)
			t.Log(mustRun(t, "", "", netfreeze, "inspect", images, "--target", next))
			p.restore()
			refused(t, images, next, "is still open")
		})
	}
	t.Run("podman", testInspectPodman)
}

// testInspectPodman inspects archives that podman exports, compressed in each way.
func testInspectPodman(t *testing.T) {
	withNetfreeze(t, settings{policy: "hold"})
	e := newPodman(newTopology(t), false)
	p := newCalledPair(e, e.bridge, e.topo.describeHost("app"), queued)
	for _, compression := range []string{"zstd", "gzip", "none"} {
		archive := filepath.Join(t.TempDir(), "checkpoint.tar")
		if err := e.dump(p.dumped, true, "--export", archive, "--compress", compression); err != nil {
			t.Fatal(err)
		}
		p.dumped.awaitStop()
		c := inspected(t, archive)
		checkQueues(t, p.app.netns, c)
		o := c.Origin
		if o.Container.Name != p.dumped.id || o.Container.ID == "" || o.Image != trafficImage || o.Engine != "podman" || o.Runtime != "runc" {
			t.Errorf("%s: the container: %+v", compression, o)
		}
		if len(o.Interfaces) != 1 || o.Interfaces[0].MAC != p.app.mac || !strings.Contains(fmt.Sprint(o.Interfaces[0].Addresses), p.app.v4.String()+"/24") {
			t.Errorf("%s: the interfaces: %+v", compression, o.Interfaces)
		}
		if c.Where != "checkpoint" || time.Since(o.Time) > time.Minute || len(c.Tasks) == 0 {
			t.Errorf("%s: %+v", compression, c)
		}
		refused(t, archive, fmt.Sprint(p.dumped.pid), "is still open", "NF502")
		refused(t, archive, p.peer.netns, p.app.v4.String()+"/24 dev", "NF501")
		if compression == "none" {
			inspectImages(t, archive, c)
		}
		mustRun(t, "", "", netfreeze, "thaw", fmt.Sprint(p.dumped.pid))
		p.awaitTraffic(patience, time.Now())
	}
	p.checkAllBytes()
}

// inspectImages makes an image of an archive, as for Kubernetes, and inspects it in the
// forms in which a registry's images are kept.
func inspectImages(t *testing.T, archive string, want *inspect.Checkpoint) {
	t.Helper()
	dir := t.TempDir()
	crane := filepath.Join(build, "crane")
	startDaemon(t, dir, func() error {
		_, err := runIn("", "", crane, "catalog", "--insecure", registry)
		return err
	}, crane, "registry", "serve", "--address", registry)
	image := registry + "/checkpoint:1"
	mustRun(t, "", "", crane, "append", "--insecure", "-f", archive, "-t", image)
	mustRun(t, "", "", crane, "mutate", "--insecure", "--annotation", "org.criu.checkpoint.container.name=web", image, "-t", image)
	for _, format := range []string{"oci", "tarball", "oci-archive"} {
		path := filepath.Join(dir, format)
		switch format {
		case "oci-archive":
			mustRun(t, "", "", "tar", "-C", filepath.Join(dir, "oci"), "-cf", path, ".")
		default:
			mustRun(t, "", "", crane, "pull", "--insecure", "--format", format, image, path)
		}
		got := inspected(t, path)
		if fmt.Sprint(got.Connections) != fmt.Sprint(want.Connections) || got.Origin.Container.ID != want.Origin.Container.ID {
			t.Errorf("%s: %+v, want %+v", format, got, want)
		}
		if st, err := os.Stat(path); err != nil || st.IsDir() != (format == "oci") {
			t.Errorf("%s is not what it is called: %v", format, err)
		}
	}
}
