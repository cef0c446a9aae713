// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/e2e/internal/standstill"
)

// build is the directory, shared into the lab, that holds what was built on the
// host: the traffic program and, below dest, criu-netfreeze as "make install"
// with DESTDIR left it.
var build = filepath.Dir(os.Args[0])

// trafficProgram is the program that every task runs.
var trafficProgram = filepath.Join(build, "traffic")

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == plainRunc {
		fmt.Fprintln(os.Stderr, "e2e:", runPlainRunc())
		os.Exit(1)
	}
	if os.Getenv("NETFREEZE_IN_LAB") == "" {
		fmt.Fprintln(os.Stderr, "e2e: these tests change the machine they run on: run them in the lab, with \"make e2e\"")
		os.Exit(1)
	}
	if os.Getenv(packageRoot) != "" { // where nothing is installed yet
		if err := enterNewRoot(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: make a root:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if err := install(filepath.Join(build, "dest")); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	standstill.Watch()
	os.Exit(m.Run())
}

// install copies criu-netfreeze to where a user would have it. The lab has its
// own, initially empty, /usr/local and /etc/criu.
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
