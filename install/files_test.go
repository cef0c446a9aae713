// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// TestRace changes a file between the look and the change: it stays as it is now.
func TestRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runc.conf")
	if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Change{target: path, Before: []byte("before"), After: []byte("ours")}
	staged, err := c.stage()
	if err != nil {
		t.Fatal(err)
	}
	err = c.commit(staged)
	if got, ok := code.Of(err); !ok || got != code.InstallRace {
		t.Errorf("got %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != "theirs" {
		t.Errorf("the file is %q now (%v)", now, err)
	}
}
