// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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
		{"0::/machine.slice/libpod-abcdef0123.scope/container\n", "abcd", "abcdef0123"},
		{"0::/libpod_parent/libpod-abcdef0123\n", "abcd", "abcdef0123"},
		{"0::/kubepods/crio-abcdef0123\n", "abcd", "abcdef0123"},
		{"0::/machine.slice/libpod-conmon-abcdef0123.scope\n", "abcd", ""},
		{"0::/kubepods/crio-conmon-abcdef0123\n", "abcd", ""},
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

// TestOtherFiles: what is no regular file, or far too large, is refused, and nobody
// waits for it.
func TestOtherFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	c := &Container{Bundle: dir}
	for _, tc := range []struct {
		name string
		put  func() error
		want string
	}{
		{"FIFO", func() error { return unix.Mkfifo(path, 0o600) }, "not a regular file"},
		{"directory", func() error { return os.Mkdir(path, 0o700) }, "not a regular file"},
		{"device", func() error { return os.Symlink("/dev/zero", path) }, "not a regular file"},
		{"large", func() error {
			return os.WriteFile(path, []byte(`{"annotations": {"a": "`+strings.Repeat("b", maxJSON)+`"}}`), 0o600)
		}, "larger than"},
	} {
		if err := tc.put(); err != nil {
			t.Fatal(err)
		}
		if err := c.readBundle(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzIDFromCgroup looks for an id in the names of control groups.
func FuzzIDFromCgroup(f *testing.F) {
	f.Add("0::/kubepods.slice/pod1.slice/crio-abcdef0123.scope\n", "abcd")
	f.Add("12:pids:/docker/abcdef\n0::/\n", "abc")
	f.Fuzz(func(t *testing.T, data, prefix string) {
		id := idFromCgroup(data, prefix)
		if id != "" && (!strings.HasPrefix(id, prefix) || strings.Contains(id, "/") || !strings.Contains(data, id)) {
			t.Errorf("%q by %q: %q", data, prefix, id)
		}
	})
}

// FuzzRuntimeState reads runc's state.json and crun's status.
func FuzzRuntimeState(f *testing.F) {
	f.Add([]byte(`{"config":{"labels":["x=y","bundle=/bundles/c1"]}}`))
	f.Add([]byte(`{"pid":1,"bundle":"/bundles/c2","config":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var st runtimeState
		if decode(bytes.NewReader(data), &st) != nil {
			return
		}
		if b := st.bundle(); b != st.Bundle && !slices.Contains(st.Config.Labels, "bundle="+b) {
			t.Errorf("%s: the bundle is %q", data, b)
		}
	})
}

// FuzzBundle reads config.json.
func FuzzBundle(f *testing.F) {
	f.Add([]byte(`{"annotations":{"io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.pod.namespace":"shop"},
		"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/web"}]}}`))
	f.Add([]byte(`{"linux":{"namespaces":[{"type":"network"}]}}`))
	f.Add([]byte(`{"linux":null,"annotations":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var spec specs.Spec
		if decode(bytes.NewReader(data), &spec) != nil {
			return
		}
		var c Container
		c.take(&spec)
		asked := spec.Linux != nil && slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
			return ns.Type == specs.NetworkNamespace
		})
		if c.HasNetNS != asked || c.NetNSPath != "" && !asked {
			t.Errorf("%s: got %+v", data, c)
		}
	})
}

// TestOtherCaller takes no program for a runtime that only has a command line like one,
// and asks the runtime that it is for its bundle.
func TestOtherCaller(t *testing.T) {
	for name, tc := range map[string]struct {
		bundle string // in the caller's directory, "" for none
		args   []string
		known  bool
	}{
		"an RPC client":              {"", []string{"restore", "-", "images"}, false},
		"a runtime in its bundle":    {"{}", []string{"restore", "web"}, true},
		"a runtime without a bundle": {"", []string{"restore", "--bundle", "/nonexistent", "web"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if tc.bundle != "" {
				if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(tc.bundle), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			// The shell is the caller, and its child stands for CRIU.
			cmd := exec.Command("/bin/sh", append([]string{"-c", "sleep 3600 & echo $!; wait"}, tc.args...)...)
			cmd.Args = append([]string{"client", "-c", "sleep 3600 & echo $!; wait"}, tc.args...)
			cmd.Dir = dir
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var criu int
			_, err = fmt.Fscan(out, &criu)
			t.Cleanup(func() {
				_ = unix.Kill(criu, unix.SIGKILL)
				_ = cmd.Wait()
			})
			if err != nil {
				t.Fatal(err)
			}
			c, err := Runtime(criu)
			if (c != nil || err != nil) != tc.known {
				t.Errorf("got %+v, %v", c, err)
			}
		})
	}
}
