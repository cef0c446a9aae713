// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImage runs the DaemonSet's image as its manifest says, for a node whose root
// directory is only a directory, with a real runtime's CNI configuration in it. It
// installs, and takes everything back at its end.
func TestImage(t *testing.T) {
	withoutNetfreeze(t)
	e := newPodman(newTopology(t), false)
	const image = "localhost/criu-netfreeze:test"
	e.must("build", "--file", filepath.Join(build, "image", "Containerfile"), "--tag", image, filepath.Join(build, "image", "root"))
	node := filepath.Join(t.TempDir(), "node")
	conflist := filepath.Join(node, "etc/cni/net.d/10-net.conflist")
	list := `{"cniVersion": "1.0.0", "name": "net", "plugins": [` + bridgePlugin + `]}`
	for path, text := range map[string]string{conflist: list, filepath.Join(node, "etc/criu/runc.conf"): "manage-cgroups soft\n"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, node)
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	e.must("run", "--detach", "--name", "node", "--privileged", "--pid", "host", "--network", "none",
		"--volume", node+":/host", "--volume", stateDir+":"+stateDir, image, "--runtime=runc,crun")
	t.Cleanup(func() { e.must("rm", "--force", "--ignore", "--time", "0", "node") })
	poll(t, patience, "the installation", func() error {
		if log := e.must("logs", "node"); !strings.Contains(log, "SIGTERM takes all of it back") {
			return fmt.Errorf("it says %s", log)
		}
		return nil
	})
	const prefix = "/opt/criu-netfreeze"
	if text, _ := os.ReadFile(filepath.Join(node, "etc/criu/runc.conf")); !strings.Contains(string(text), "action-script "+prefix+"/libexec/criu-netfreeze/netfreeze-hook") {
		t.Errorf("runc.conf is %s", text)
	}
	if text, _ := os.ReadFile(conflist); !strings.Contains(string(text), `"plugins": [{"type": "netfreeze-cni"`) {
		t.Errorf("the list is %s", text)
	}
	// The programs work from there.
	mustRun(t, "", "", filepath.Join(node, prefix, "bin/netfreeze"), "policy", "--pod", "shop/db-0")
	e.must("stop", "--time", "20", "node")
	if after := tree(t, node); after != before {
		t.Errorf("the node was\n%s\nand is\n%s\nthe log: %s", before, after, e.must("logs", "node"))
	}
}

// tree is what is in a directory: files with their content.
func tree(t *testing.T, dir string) string {
	t.Helper()
	return mustRun(t, "", "", "sh", "-c", "cd "+dir+` && find . ! -type d | sort | while read -r f; do echo "$f"; cat "$f"; done`)
}
