// SPDX-License-Identifier: Apache-2.0

package ocihook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/expect"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newContainer starts a process in a namespace with an address.
func newContainer(t *testing.T, addr string) (pid int, ns *netns.Namespace) {
	t.Helper()
	ns = nstest.New(t)
	nstest.Run(t, ns, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	nstest.Run(t, ns, "ip", "addr", "add", addr, "dev", "eth0")
	cmd := exec.Command("sleep", "infinity")
	must(t, ns.Do(cmd.Start))
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid, ns
}

// hook runs the hook as a runtime does.
func hook(id string, pid int, annotations map[string]string, args ...string) (int, string) {
	st, err := json.Marshal(map[string]any{"ociVersion": "1.0.2", "id": id, "status": "creating", "pid": pid, "bundle": "/b", "annotations": annotations})
	if err != nil {
		panic(err)
	}
	var said bytes.Buffer
	return Main(args, bytes.NewReader(st), &said), said.String()
}

func frozen(t *testing.T, ns *netns.Namespace) bool {
	t.Helper()
	st, err := rules.Look(ns)
	must(t, err)
	return st.Frozen
}

func TestHook(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	pod := map[string]string{"io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.name": "db-0"}
	expectPod, err := expect.Pod("shop/db-0")
	must(t, err)
	expectID, err := expect.Container(id[:12])
	must(t, err)
	expect4, err := expect.Address(netip.MustParseAddr("192.0.2.7"))
	must(t, err)
	expect6, err := expect.Address(netip.MustParseAddr("2001:db8::7"))
	must(t, err)
	for name, c := range map[string]struct {
		expected *expect.Expectation
		pod      map[string]string
		addr     string
		args     []string
		want     bool
	}{
		"nothing":         {nil, pod, "192.0.2.7/24", nil, false},
		"another address": {&expect4, pod, "192.0.2.77/24", nil, false},
		"another pod":     {&expectPod, nil, "192.0.2.7/24", []string{"--pod", "*/*"}, false},
		"pod":             {&expectPod, pod, "192.0.2.7/24", nil, true},
		"container":       {&expectID, nil, "192.0.2.7/24", nil, true},
		"IPv4":            {&expect4, nil, "192.0.2.7/24", nil, true},
		"IPv6":            {&expect6, nil, "2001:db8::7/64", nil, true},
		"pattern":         {nil, pod, "192.0.2.7/24", []string{"--pod", "a/b", "--pod", "shop/*"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			pid, ns := newContainer(t, c.addr)
			if c.expected != nil {
				must(t, c.expected.Expect(time.Minute))
				defer c.expected.Cancel()
			}
			for range 2 { // a runtime may have it listed twice
				if code, said := hook(id, pid, c.pod, c.args...); code != 0 || said != "" {
					t.Errorf("exit code %d: %s", code, said)
				}
			}
			of, err := record.Of(ns)
			must(t, err)
			if frozen(t, ns) != c.want || (len(of) == 1) != c.want {
				t.Fatalf("frozen: %v, %d records, want %v", frozen(t, ns), len(of), c.want)
			}
			for _, r := range of {
				if r.Container.ID != id || !strings.Contains(r.Note, "netfreeze-oci") {
					t.Errorf("record: %+v", r)
				}
				must(t, r.Remove())
			}
		})
	}
}

// TestHost has the hook leave the host's namespace alone, whatever its
// addresses are, and refuse where somebody expects that very container.
func TestHost(t *testing.T) {
	host, err := netns.OpenHost()
	must(t, err)
	defer host.Close()
	nstest.Run(t, host, "ip", "link", "add", "dummy0", "type", "veth", "peer", "name", "dummy1")
	nstest.Run(t, host, "ip", "addr", "add", "192.0.2.9/24", "dev", "dummy0")
	addr, err := expect.Address(netip.MustParseAddr("192.0.2.9"))
	must(t, err)
	must(t, addr.Expect(time.Minute))
	defer addr.Cancel()
	if code, said := hook("abc", os.Getpid(), nil); code != 0 {
		t.Errorf("a container in the host's namespace: exit code %d: %s", code, said)
	}
	id, err := expect.Container("abc")
	must(t, err)
	must(t, id.Expect(time.Minute))
	defer id.Cancel()
	if code, said := hook("abc", os.Getpid(), nil); code != 1 || !strings.Contains(said, "must not be frozen") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if frozen(t, host) {
		t.Error("frozen")
	}
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		args  []string
		stdin string
		say   string
	}{
		"option":   {[]string{"--nothing"}, "", "flag provided but not defined"},
		"pattern":  {[]string{"--pod", "shop"}, "", "not a pattern of pods"},
		"argument": {[]string{"shop/db"}, "", `unexpected argument "shop/db"`},
		"empty":    {nil, "", "read the container's state"},
		"no pid":   {nil, `{"id": "a"}`, "createRuntime hook"},
		"no id":    {nil, fmt.Sprintf(`{"pid": %d}`, os.Getpid()), "createRuntime hook"},
		"gone":     {nil, `{"id": "a", "pid": 4194000}`, "4194000"},
	} {
		var said bytes.Buffer
		if code := Main(c.args, strings.NewReader(c.stdin), &said); code != 1 || !strings.Contains(said.String(), c.say) {
			t.Errorf("%s: exit code %d: %s", name, code, said.String())
		}
	}
	var said bytes.Buffer
	if code := Main([]string{"--help"}, nil, &said); code != 0 || !strings.Contains(said.String(), "createRuntime") {
		t.Errorf("--help: exit code %d: %s", code, said.String())
	}
}
