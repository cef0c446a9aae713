// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
)

func TestParseCommand(t *testing.T) {
	for _, tc := range []struct {
		line string
		want command
		ok   bool
	}{
		{"/usr/bin/runc --root /run/x --log /l checkpoint --leave-running --image-path /i abc", command{"checkpoint", "abc", "/run/x", "", "runc"}, true},
		{"runc restore -d --bundle=/b --image-path /i abc", command{"restore", "abc", "", "/b", "runc"}, true},
		{"crun --root=/r restore -b /b abc", command{"restore", "abc", "/r", "/b", "crun"}, true},
		{"sudo criu restore -d -D /img", command{}, false},
		{"runc run abc", command{}, false},
		{"bash", command{}, false},
		{"runc restore", command{}, false},
		{"runc checkpoint --help", command{}, false},
		{"", command{}, false},
	} {
		got, ok := parseCommand(strings.Fields(tc.line))
		if ok != tc.ok || ok && got != tc.want {
			t.Errorf("%q: got %+v, %v", tc.line, got, ok)
		}
	}
}

func FuzzParseCommand(f *testing.F) {
	f.Add("runc\x00--root\x00/r\x00checkpoint\x00id")
	f.Add("runc\x00restore\x00-b")
	f.Fuzz(func(t *testing.T, line string) {
		c, ok := parseCommand(strings.Split(line, "\x00"))
		if ok && c.verb != "checkpoint" && c.verb != "restore" {
			t.Errorf("accepted verb %q", c.verb)
		}
	})
}

func TestIDFromCgroup(t *testing.T) {
	for _, tc := range []struct{ data, prefix, want string }{
		{"0::/kubepods.slice/pod1.slice/crio-abcdef0123.scope\n", "abcd", "abcdef0123"},
		{"12:pids:/docker/abcdef\n0::/\n", "abc", "abcdef"},
		{"0::/user.slice/user-0.slice\n", "abc", ""},
		{"", "abc", ""},
	} {
		if got := idFromCgroup(tc.data, tc.prefix); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.data, got, tc.want)
		}
	}
	if _, err := FindByID("no-such-container-id"); err == nil {
		t.Error("found a container that is not there")
	}
	if _, err := FindByID("a"); err == nil {
		t.Error("accepted a prefix of one character")
	}
}

func TestBundle(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("runc/c1/state.json", `{"config":{"labels":["x=y","bundle=/bundles/c1"]}}`)
	write("crun/c1/status", `{"pid":1,"bundle":"/bundles/c2"}`)
	for root, want := range map[string]string{"runc": "/bundles/c1", "crun": "/bundles/c2", "none": ""} {
		got := bundleFromState(command{id: "c1", root: filepath.Join(dir, root)})
		if got != want {
			t.Errorf("%s: got %q, want %q", root, got, want)
		}
	}

	write("config.json", `{"annotations":{"io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.pod.namespace":"shop"},
		"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/web"}]}}`)
	c := &Container{Container: identity.Container{ID: "c1"}, Bundle: dir}
	if err := c.readBundle(); err != nil {
		t.Fatal(err)
	}
	if c.Pod != "shop/web-0" || !c.HasNetNS || c.NetNSPath != "/run/netns/web" {
		t.Errorf("got %+v", c)
	}
	write("config.json", `{"annotations":`)
	if err := c.readBundle(); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("a truncated bundle: %v", err)
	}
}
