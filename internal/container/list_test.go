// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestIDs lists containers of runc's, crun's and containerd's, and nothing else.
func TestIDs(t *testing.T) {
	root := t.TempDir()
	for _, file := range []string{
		"runc/web/state.json", "crun/db/status", "crun/web/status",
		"containerd/k8s.io/3f2a91/state.json", "runc/half/other", "runc/state.json",
	} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := idsIn([]string{root + "/runc", root + "/crun", root + "/containerd/*", root + "/none"})
	if diff := cmp.Diff([]string{"3f2a91", "db", "web"}, got); diff != "" {
		t.Error(diff)
	}
}
