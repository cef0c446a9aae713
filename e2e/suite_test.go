//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// criuDir is CRIU's configuration and ours.
const criuDir = "/etc/criu"

// criuFiles are the configuration files that the engines make CRIU read.
var criuFiles = []string{"default.conf", "runc.conf", "crun.conf"}

// withoutSuite takes our lines out of CRIU's configuration for one test.
func withoutSuite(t *testing.T) {
	t.Helper()
	for _, name := range criuFiles {
		if err := os.Remove(filepath.Join(criuDir, name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}
