// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// powerless runs fn without the right to change rules in ns.
func powerless(ns *netns.Namespace, fn func() error) error {
	return ns.Do(func() (err error) {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		full := data
		defer func() { err = errors.Join(err, unix.Capset(&header, &full[0])) }()
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&header, &data[0]); err != nil {
			return err
		}
		return fn()
	})
}

// onlyPrograms hides all programs but the given ones: the keys are the names under
// which they can be found, the values what they are.
func onlyPrograms(t *testing.T, programs map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, is := range programs {
		path, err := lookPath(is)
		must(t, err)
		must(t, os.Symlink(path, filepath.Join(dir, name)))
	}
	before := sbinDirs
	t.Cleanup(func() { sbinDirs = before })
	sbinDirs = nil
	t.Setenv("PATH", dir)
}

// TestNothingWorks expects an error that names everything that was tried, and a remedy.
func TestNothingWorks(t *testing.T) {
	ns := nstest.Isolated(t)
	onlyPrograms(t, nil)
	err := powerless(ns.Namespace, func() error {
		_, err := Open(ns, backend.Auto)
		return err
	})
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("the error is not %v: %v", unix.EPERM, err)
	}
	for _, want := range []string{"install iptables", "nftables: ", "iptables: ", "iptables-legacy: ", ns.String()} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

// TestPoorPath finds the programs although PATH, as a daemon's may, has no sbin.
func TestPoorPath(t *testing.T) {
	t.Setenv("PATH", "/nowhere")
	if _, err := lookPath("iptables-nft"); err != nil {
		t.Error(err)
	}
}

// TestVariants finds a variant that is installed as iptables only, and refuses to
// use it as the other variant.
func TestVariants(t *testing.T) {
	ns := nstest.Isolated(t)
	onlyPrograms(t, map[string]string{
		"iptables": "iptables-legacy", "iptables-restore": "iptables-legacy-restore",
		"ip6tables": "ip6tables-legacy", "ip6tables-restore": "ip6tables-legacy-restore",
	})
	f, err := Open(ns, backend.IPTablesLegacy)
	must(t, err)
	if f.Backend() != backend.IPTablesLegacy {
		t.Errorf("the back end is %s", f.Backend())
	}
	must(t, f.Freeze(time.Minute))
	must(t, ThawAll(ns))
	if _, err := Open(ns, backend.IPTablesNFT); err == nil || !strings.Contains(err.Error(), "is iptables-legacy") {
		t.Errorf("the nft variant was asked for and the error is %v", err)
	}
}

// TestNoHalf makes sure that IPv4 is never frozen alone.
func TestNoHalf(t *testing.T) {
	ns := nstest.Isolated(t)
	four := map[string]string{"iptables-legacy": "iptables-legacy", "iptables-legacy-restore": "iptables-legacy-restore"}
	onlyPrograms(t, four)
	if _, err := Open(ns, backend.IPTablesLegacy); err == nil || !strings.Contains(err.Error(), "which has IPv6 too") {
		t.Errorf("without ip6tables the error is %v", err)
	}
	// The program for IPv6 exists, but fails.
	must(t, os.Symlink("/bin/false", filepath.Join(os.Getenv("PATH"), "ip6tables-legacy-restore")))
	must(t, os.Symlink("/usr/sbin/ip6tables-legacy", filepath.Join(os.Getenv("PATH"), "ip6tables-legacy")))
	f, err := Open(ns, backend.IPTablesLegacy)
	must(t, err)
	if err := f.Freeze(time.Minute); err == nil {
		t.Error("IPv4 alone was frozen")
	}
	if st, err := f.State(); err != nil || st != (State{}) {
		t.Errorf("left behind: %+v, %v", st, err)
	}
}
