// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// packageRoot is set, in the environment, in the root into which packages are installed.
const packageRoot = "NETFREEZE_PACKAGE_ROOT"

// enterNewRoot makes the lab's own root, as it was made, the lower layer of a new one that
// can be written to, and makes that this process's root. What does not belong to a root
// file system is the lab's. The process has a mount namespace of its own.
func enterNewRoot() error {
	dir, err := os.MkdirTemp("", "root")
	if err != nil {
		return err
	}
	if err := unix.Mount("root", dir, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	upper, work, root := filepath.Join(dir, "upper"), filepath.Join(dir, "work"), filepath.Join(dir, "root")
	for _, d := range []string{upper, work, root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("root", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", upper, work)); err != nil {
		return fmt.Errorf("mount an overlay: %w", err)
	}
	for _, d := range []string{"proc", "sys", "dev", "tmp", "opt"} {
		if err := unix.Mount("/"+d, filepath.Join(root, d), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount /%s: %w", d, err)
		}
	}
	// What other tests have left in /run is not to be found, or removed, here.
	if err := unix.Mount("run", filepath.Join(root, "run"), "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := os.Mkdir(filepath.Join(root, "run/lock"), 0o1777); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, filepath.Join(root, "mnt")); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return unix.Unmount("/mnt", unix.MNT_DETACH)
}

// inPackageRoot runs a test in a root of its own, in a mount namespace of its own, by
// executing itself there. The root is Debian's, with nothing of ours in it. What happens
// to it is gone afterwards.
func inPackageRoot(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if os.Getenv(packageRoot) != "" {
		test(t)
		return
	}
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.v", "-test.run", "^"+t.Name()+"$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // and what is mounted there is private
	cmd.Env = append(os.Environ(), packageRoot+"=1")
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatal("it did not run")
	}
}

// keptByOthers are files that a package manager and its triggers keep for themselves.
var keptByOthers = regexp.MustCompile(`^/(var/(lib/(dpkg|rpm)|cache)(/|$)|var/log/(dpkg|alternatives)\.log|etc/ld\.so\.cache|root/\.rpmdb|usr/local/bin/netfreeze)`)

// rootFiles lists what is in the root file system, and our state in /run, but for what
// the package managers keep.
func rootFiles(t *testing.T) string {
	t.Helper()
	// Without a limit: from a slow disk it takes its time.
	found, err := exec.CommandContext(t.Context(), "find", "/", "-xdev", "-printf", `%p %M %u:%g %l\n`).Output()
	if err != nil {
		t.Fatal(err)
	}
	all := string(found)
	if _, err := os.Stat(stateDir); err == nil {
		all += mustRun(t, "", "", "find", stateDir)
	}
	var b strings.Builder
	for line := range strings.Lines(all) {
		if !keptByOthers.MatchString(line) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// compareFiles says what came and what went.
func compareFiles(t *testing.T, when, before, after string) {
	t.Helper()
	had, has := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(before) {
		had[line] = true
	}
	for line := range strings.Lines(after) {
		has[line] = true
		if !had[line] {
			t.Errorf("%s: there is %s", when, line)
		}
	}
	for line := range had {
		if !has[line] {
			t.Errorf("%s: there is no longer %s", when, line)
		}
	}
}
