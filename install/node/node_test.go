// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criu-netfreeze/criu-netfreeze/install"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), mode))
}

// newNode is a node with a root directory, and a container with the programs.
func newNode(t *testing.T) *Node {
	t.Helper()
	dir := t.TempDir()
	n := &Node{
		Root: filepath.Join(dir, "host"), Prefix: filepath.Join(dir, "container/opt/criu-netfreeze"),
		CNIBin: "/opt/cni/bin", CNIConf: "/etc/cni/net.d",
		Options: install.Options{Runtimes: []string{"runc", "crun"}, NetworkLock: "skip"},
	}
	put(t, filepath.Join(n.Prefix, "bin/netfreeze"), "netfreeze", 0o755)
	put(t, filepath.Join(n.Prefix, "libexec/criu-netfreeze/netfreeze-hook"), "hook", 0o755)
	must(t, os.Symlink("netfreeze-hook", filepath.Join(n.Prefix, "libexec/criu-netfreeze/pre-dump")))
	put(t, filepath.Join(n.Prefix, "cni/netfreeze-cni"), "cni", 0o755)
	put(t, filepath.Join(n.Root, "etc/criu/runc.conf"), "manage-cgroups soft\n", 0o644)
	put(t, filepath.Join(n.Root, "etc/cni/net.d/10-calico.conflist"), "{\n  \"plugins\": [\n    {\"type\": \"calico\"}\n  ]\n}\n", 0o600)
	put(t, filepath.Join(n.Root, "etc/cni/net.d/99-single.conf"), `{"type": "loopback"}`, 0o644)
	put(t, filepath.Join(n.Root, "opt/cni/bin/calico"), "calico", 0o755)
	return n
}

// files returns what is on the node: the content of files, and where links lead.
func (n *Node) files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(n.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, n.Root)
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			all[name] = "-> " + target
			return err
		}
		text, err := os.ReadFile(path)
		info, err2 := d.Info()
		all[name] = fmt.Sprintf("%s %s", info.Mode(), text)
		return errors.Join(err, err2)
	}))
	return all
}

func silent(string, ...any) {}

func nothing() error { return nil }

// TestNode installs, twice, and takes everything back.
func TestNode(t *testing.T) {
	n := newNode(t)
	before := n.files(t)
	must(t, n.Install(silent))
	after := n.files(t)
	hook := filepath.Join(n.Prefix, "libexec/criu-netfreeze/netfreeze-hook")
	for name, want := range map[string]string{
		"/etc/criu/runc.conf":                    "action-script " + hook,
		"/etc/criu/crun.conf":                    "",
		"/etc/criu/netfreeze.toml":               "policy",
		"/opt/cni/bin/netfreeze-cni":             "-rwxr-xr-x cni",
		hook:                                     "-rwxr-xr-x hook",
		filepath.Dir(hook) + "/pre-dump":         "-> netfreeze-hook",
		"/etc/cni/net.d/10-calico.conflist":      `"plugins": [{"type": "netfreeze-cni"`,
		"/etc/cni/net.d/99-single.conf":          `{"type": "loopback"}`,
		filepath.Join(n.Prefix, "bin/netfreeze"): "netfreeze",
	} {
		if want != "" && !strings.Contains(after[name], want) {
			t.Errorf("%s is %q, and lacks %q", name, after[name], want)
		}
	}
	must(t, n.Install(func(format string, args ...any) { t.Errorf("the second time: "+format, args...) }))
	must(t, n.Remove(nothing, silent))
	if diff := cmp.Diff(before, n.files(t)); diff != "" {
		t.Errorf("not as before: %s", diff)
	}
	must(t, n.Remove(nothing, func(format string, args ...any) { t.Errorf("removed again: "+format, args...) }))
}

// TestNodeRewritten puts our plugin back when a network add-on has written its list anew,
// and replaces programs of another version.
func TestNodeRewritten(t *testing.T) {
	n := newNode(t)
	must(t, n.Install(silent))
	list := filepath.Join(n.Root, "etc/cni/net.d/10-calico.conflist")
	put(t, list, `{"plugins": [{"type": "calico", "mtu": 1400}]}`, 0o600)
	put(t, filepath.Join(n.Prefix, "bin/netfreeze"), "newer", 0o755)
	must(t, n.Install(silent))
	files := n.files(t)
	if got := files["/etc/cni/net.d/10-calico.conflist"]; !strings.Contains(got, `[{"type": "netfreeze-cni"`) || !strings.Contains(got, "1400") {
		t.Error(got)
	}
	if got := files[filepath.Join(n.Prefix, "bin/netfreeze")]; !strings.HasSuffix(got, "newer") {
		t.Error(got)
	}
}

// TestNodeInForce keeps the programs while something is held, and nothing that calls them.
func TestNodeInForce(t *testing.T) {
	n := newNode(t)
	before := n.files(t)
	must(t, n.Install(silent))
	held := errors.New("web is held")
	if err := n.Remove(func() error { return held }, silent); !errors.Is(err, held) {
		t.Errorf("removed: %v", err)
	}
	files := n.files(t)
	if files["/etc/criu/runc.conf"] != before["/etc/criu/runc.conf"] || strings.Contains(files["/etc/cni/net.d/10-calico.conflist"], pluginType) {
		t.Error("something still calls the programs")
	}
	if files[filepath.Join(n.Prefix, "bin/netfreeze")] == "" {
		t.Error("the program that can undo the hold is gone")
	}
	must(t, n.Remove(nothing, silent))
	if diff := cmp.Diff(before, n.files(t)); diff != "" {
		t.Errorf("not as before: %s", diff)
	}
}

// killed is the panic by which a test ends a change half-way.
type killed struct{}

// until runs do, which gets a say that ends it at the nth word. It reports whether do
// came to its own end.
func until(n int, do func(say func(string, ...any)) error) (done bool, err error) {
	defer func() {
		if _, ok := recover().(killed); ok {
			done = false
		}
	}()
	return true, do(func(string, ...any) {
		if n--; n < 0 {
			panic(killed{})
		}
	})
}

// TestNodeKilled ends an installation and a removal after each change: what is called is
// there at any time, and a removal that follows leaves the node as it was.
func TestNodeKilled(t *testing.T) {
	n := newNode(t)
	before := n.files(t)
	consistent := func(what string) {
		t.Helper()
		files := n.files(t)
		hook := filepath.Join(n.Prefix, "libexec/criu-netfreeze/netfreeze-hook")
		if strings.Contains(files["/etc/criu/runc.conf"], hook) && files[hook] == "" {
			t.Errorf("%s: runc.conf names a hook that is not there", what)
		}
		if strings.Contains(files["/etc/cni/net.d/10-calico.conflist"], pluginType) && files["/opt/cni/bin/netfreeze-cni"] == "" {
			t.Errorf("%s: CNI calls a plugin that is not there", what)
		}
	}
	rounds := 0
	for done := false; !done; rounds++ {
		var err error
		done, err = until(rounds, n.Install)
		must(t, err)
		consistent(fmt.Sprintf("install ended after %d changes", rounds))
		must(t, n.Remove(nothing, silent))
		if diff := cmp.Diff(before, n.files(t)); diff != "" {
			t.Fatalf("install ended after %d changes, then removed: %s", rounds, diff)
		}
	}
	for i := range rounds {
		must(t, n.Install(silent))
		_, err := until(i, func(say func(string, ...any)) error { return n.Remove(nothing, say) })
		must(t, err)
		consistent(fmt.Sprintf("removal ended after %d changes", i))
		must(t, n.Remove(nothing, silent))
		if diff := cmp.Diff(before, n.files(t)); diff != "" {
			t.Fatalf("removal ended after %d changes, then removed: %s", i, diff)
		}
	}
	if rounds < 5 {
		t.Errorf("there were only %d changes: %v", rounds, maps.Collect(maps.All(before)))
	}
}
