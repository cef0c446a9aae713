// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// packager is a package manager, as far as the tests use it.
type packager struct {
	name     string
	files    string   // of the packages, with * for the version
	install  []string // a file, or a newer version
	remove   []string
	purge    []string // nil where there is no such thing
	version  []string // prints what is installed
	defaults string
}

var dpkg = packager{
	name: "dpkg", files: "criu-netfreeze_*.deb", defaults: "/etc/default/criu-netfreeze",
	install: []string{"dpkg", "-i"}, remove: []string{"dpkg", "-r", "criu-netfreeze"}, purge: []string{"dpkg", "-P", "criu-netfreeze"},
	version: []string{"dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "criu-netfreeze"},
}

// Debian's rpm wants to be told that it is meant. The packages are not signed.
var rpm = packager{
	name: "rpm", files: "criu-netfreeze-*.rpm", defaults: "/etc/sysconfig/criu-netfreeze",
	install: []string{"rpm", "--upgrade", "--nosignature", "--nodeps"}, remove: []string{"rpm", "--erase", "criu-netfreeze"},
	version: []string{"rpm", "--query", "--queryformat", "installed %{VERSION}-%{RELEASE}", "criu-netfreeze"},
}

// TestPackageDeb installs, upgrades, removes and purges the package with Debian's dpkg.
func TestPackageDeb(t *testing.T) {
	inPackageRoot(t, func(t *testing.T) { testPackage(t, dpkg) })
}

// TestPackageRPM does the same with rpm. The root is Debian's, and as good as another for
// what rpm does: it has its own database.
func TestPackageRPM(t *testing.T) {
	inPackageRoot(t, func(t *testing.T) { testPackage(t, rpm) })
}

func testPackage(t *testing.T, m packager) {
	if _, err := exec.LookPath(m.install[0]); err != nil {
		t.Skipf("there is no %s here", m.install[0])
	}
	// Neither Debian's CRIU nor its runtimes have it; the lab does.
	if err := os.RemoveAll(criuDir); err != nil {
		t.Fatal(err)
	}
	// The harness asks the program in the usual place.
	if err := os.Symlink("/usr/bin/netfreeze", netfreeze); err != nil {
		t.Fatal(err)
	}
	before := rootFiles(t)
	m.testHeld(t)
	compareFiles(t, "after the removal", before, rootFiles(t))
	m.testDefaults(t)
	compareFiles(t, "after the second removal", before, rootFiles(t))
}

// testHeld goes through a package's life while something is frozen by hand, and then held
// by a real dump.
func (m packager) testHeld(t *testing.T) {
	if said := m.do(t, m.install, m.file(t, "1")); !strings.Contains(said, "netfreeze install\n") {
		t.Errorf("it does not say how to go on: %s", said)
	}
	if found := mustRun(t, "", "", "ls", criuDir); found != "netfreeze.toml\n" {
		t.Errorf("%s has\n%s", criuDir, found)
	}
	const first, last = "manage-cgroups soft\n", "ghost-limit 1M\n"
	conf := filepath.Join(criuDir, "runc.conf")
	writeConf(t, conf, first)
	mustRun(t, "", "", "netfreeze", "install", "--runtime", "runc,crun")
	ours := readConf(t, conf)
	if !strings.Contains(ours, "action-script /usr/libexec/criu-netfreeze/netfreeze-hook\n") {
		t.Errorf("%s is\n%s", conf, ours)
	}
	writeConf(t, conf, "# before\n"+ours+last)

	topo := newTopology(t)
	frozen := topo.newNetns("frozen")
	mustRun(t, "", "", "netfreeze", "freeze", frozen)
	m.refused(t)
	mustRun(t, "", "", "netfreeze", "thaw", frozen)

	p := newPair(t, runtimeEngine("runc"), true, few)
	p.dump()
	p.dumped.awaitStop()
	m.refused(t)
	m.do(t, m.install, m.file(t, "2"))
	m.has(t, "2")
	if now := readConf(t, conf); now != "# before\n"+ours+last {
		t.Errorf("the upgrade made %s\n%s", conf, now)
	}
	if state, err := processState(p.dumped.pid); err != nil || state != 'T' {
		t.Errorf("after the upgrade the task's state is %c, %v", state, err)
	}
	if status(t, p.app.netns) == "" {
		t.Error("after the upgrade nothing is frozen")
	}
	m.refused(t)
	mustRun(t, "", "", "netfreeze", "thaw", p.dumped.id)
	p.checkUnharmed(time.Now())
	p.dumped.engine.remove(p.dumped)

	writeConf(t, "/var/log/criu-netfreeze/report.json", "{}\n")
	m.do(t, m.remove)
	if now := readConf(t, conf); now != "# before\n"+first+last {
		t.Errorf("the removal made %s\n%s", conf, now)
	}
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	m.finish(t)
}

// testDefaults has the package install the action-script by itself: told so by the
// environment, and at an upgrade by its defaults file. It is then purged in one go.
func (m packager) testDefaults(t *testing.T) {
	conf := filepath.Join(criuDir, "runc.conf")
	t.Setenv("NETFREEZE_INSTALL", "--runtime runc --manage-cgroups ignore")
	if said := m.do(t, m.install, m.file(t, "1")); !strings.Contains(said, conf+": created\n") {
		t.Errorf("it says %s", said)
	}
	if now := readConf(t, conf); !strings.Contains(now, "manage-cgroups=ignore\n") {
		t.Errorf("%s is\n%s", conf, now)
	}
	t.Setenv("NETFREEZE_INSTALL", "")
	writeConf(t, m.defaults, "NETFREEZE_INSTALL=\"--runtime runc --network-lock nftables\"\n")
	m.do(t, m.install, m.file(t, "2"))
	if now := readConf(t, conf); !strings.Contains(now, "network-lock nftables\n") {
		t.Errorf("%s is\n%s", conf, now)
	}
	m.finish(t)
}

// finish purges. Where there is no such thing it removes, and then what stays on purpose.
func (m packager) finish(t *testing.T) {
	t.Helper()
	if m.purge != nil {
		m.do(t, m.purge)
		return
	}
	if _, err := runIn("", "", m.version...); err == nil {
		m.do(t, m.remove)
	}
	for _, path := range []string{"/var/log/criu-netfreeze", m.defaults + ".rpmsave"} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	// Nothing else on this system has directories that are Fedora's own.
	for _, path := range []string{criuDir, "/etc/sysconfig", "/usr/libexec/cni", "/usr/share/licenses", "/usr/share/zsh/site-functions", "/usr/share/fish/vendor_completions.d", "/usr/share/fish"} {
		_ = os.Remove(path) // if it is there, and empty
	}
}

// file returns the package of a release.
func (m packager) file(t *testing.T, release string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(build, "e2e-packages", strings.Replace(m.files, "*", "*-"+release+"[._]*", 1)))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages of release %s: %q, %v", release, found, err)
	}
	return found[0]
}

// do has the package manager do something, and returns what it says. It asks nothing.
func (m packager) do(t *testing.T, command []string, args ...string) string {
	t.Helper()
	said := mustRun(t, "", "", append(append([]string{}, command...), args...)...)
	t.Logf("%s %s:\n%s", strings.Join(command, " "), strings.Join(args, " "), said)
	return said
}

// has checks that a release is installed, and whole.
func (m packager) has(t *testing.T, release string) {
	t.Helper()
	if is := mustRun(t, "", "", m.version...); !strings.HasPrefix(is, "installed ") || !strings.HasSuffix(is, "-"+release) {
		t.Errorf("%s: the package is %s, and should be of release %s", m.name, is, release)
	}
}

// refused has the package manager refuse to remove the package, with the reason, and
// change nothing.
func (m packager) refused(t *testing.T) {
	t.Helper()
	conf := readConf(t, filepath.Join(criuDir, "runc.conf"))
	is := mustRun(t, "", "", m.version...)
	said, err := runIn("", "", m.remove...)
	t.Logf("%s says %s", m.name, said)
	if err == nil {
		t.Fatal("it was removed")
	}
	if !strings.Contains(said, "end that first, with netfreeze thaw") {
		t.Errorf("it was refused because of %s", said)
	}
	if now := mustRun(t, "", "", m.version...); now != is {
		t.Errorf("the package was %s and is %s", is, now)
	}
	if now := readConf(t, filepath.Join(criuDir, "runc.conf")); now != conf {
		t.Errorf("runc.conf was\n%s\nand is\n%s", conf, now)
	}
}

func readConf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeConf(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
