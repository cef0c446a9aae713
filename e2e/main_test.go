//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// build is where the lab shows what was built on the host: the traffic program
// and, below dest, the suite as "make install" with DESTDIR put it there.
var build = filepath.Dir(os.Args[0])

// trafficProgram is what all tasks run.
var trafficProgram = filepath.Join(build, "traffic")

func TestMain(m *testing.M) {
	if os.Getenv("NETFREEZE_IN_LAB") == "" {
		fmt.Fprintln(os.Stderr, "e2e: these tests change the machine that they run on: run them in the lab, with \"make e2e\"")
		os.Exit(1)
	}
	if err := install(filepath.Join(build, "dest")); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// install copies the suite to where a user has it. The lab's /usr/local and
// /etc/criu are empty and its own.
func install(dest string) error {
	for _, dir := range []string{"/usr/local", "/etc/criu"} {
		from := filepath.Join(dest, dir)
		if _, err := os.Stat(from); os.IsNotExist(err) {
			continue
		}
		if out, err := exec.Command("cp", "-a", from+"/.", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("install %s: %w: %s", from, err, out)
		}
	}
	return nil
}
