// SPDX-License-Identifier: Apache-2.0

package criuimg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	for _, tc := range []struct {
		dir   string
		netns NetNS
		key   string
		local []string
	}{
		{"external", External, "extRootNetNS", []string{"10.9.0.1:7000", "[::1]:7001"}},
		{"dumped", Dumped, "", []string{"10.9.0.1:7000", "[::1]:7001"}},
		{"shared", Shared, "", []string{"127.0.0.1:7000"}},
	} {
		cp, err := Read(filepath.Join("../../testdata/images", tc.dir))
		if err != nil {
			t.Errorf("%s: %v", tc.dir, err)
			continue
		}
		if cp.NetNS != tc.netns || cp.ExtKey != tc.key {
			t.Errorf("%s: namespace %v %q, want %v %q", tc.dir, cp.NetNS, cp.ExtKey, tc.netns, tc.key)
		}
		got := map[string]bool{}
		for _, c := range cp.Conns {
			got[c.Local.String()] = true
			if c.Remote.Addr() != c.Local.Addr() {
				t.Errorf("%s: %v does not stay on its host", tc.dir, c)
			}
		}
		if len(cp.Conns) != len(tc.local) {
			t.Errorf("%s: connections %v", tc.dir, cp.Conns)
		}
		for _, l := range tc.local {
			if !got[l] {
				t.Errorf("%s: no connection from %s: %v", tc.dir, l, cp.Conns)
			}
		}
	}
}

func TestReadFails(t *testing.T) {
	if _, err := Read(t.TempDir()); err == nil || !strings.Contains(err.Error(), "inventory.img") {
		t.Errorf("an empty directory: %v", err)
	}
	dir := t.TempDir()
	copyImages(t, "../../testdata/images/external", dir)
	if err := os.WriteFile(filepath.Join(dir, "pstree.img"), []byte("no image"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil {
		t.Error("a damaged image was accepted")
	}
}

func copyImages(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
