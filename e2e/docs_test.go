// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/e2e/internal/pages"
)

// TestDocs follows what the README and the pages of docs/ have people type, beside
// TestNewUser and TestRecipes, on a machine that has criu-netfreeze from its package.
func TestDocs(t *testing.T) {
	inInstalledHost(t, testDocs)
}

func testDocs(t *testing.T) {
	t.Run("packages", testDocsPackages) // the first: it leaves the package installed
	t.Run("install", testDocsInstall)
	t.Run("readme", testDocsReadme)
	t.Run("kubernetes", testDocsKubernetes)
	t.Run("podman", testDocsGuard)
	t.Run("configuration", testDocsConfiguration)
}

// open opens a page for somebody who is root already, and for whom sudo does nothing.
func open(t *testing.T, page, scenario string) *reader {
	t.Helper()
	r := newReader(t, page, scenario)
	r.program("sudo", `exec env "$@"`)
	return r
}

func testDocsPackages(t *testing.T) {
	r := open(t, "packages.md", "packages")
	provide(t, r.dir, "1")
	file := filepath.Base(dpkg.file(t, "1"))
	r.fill = strings.NewReplacer("criu-netfreeze_1.2.3-1_amd64.deb", file)
	runc := filepath.Join(criuDir, "runc.conf")

	r.step("install")
	dpkg.has(t, "1")
	if _, err := os.Stat(runc); err == nil {
		t.Error("the page says that the package leaves CRIU's configuration as it is")
	}
	r.step("configure")
	contains(t, runc, readConf(t, runc), "netfreeze-hook")
	dpkg.do(t, dpkg.purge)
	r.step("unattended")
	contains(t, runc, readConf(t, runc), "netfreeze-hook")
	contains(t, "config show", mustRun(t, "", "", "netfreeze", "config", "show"), `policy = "kill"`)
	r.step("remove")
	if _, err := os.Stat(runc); err == nil {
		t.Error("the removal leaves runc.conf")
	}
	dpkg.do(t, dpkg.install, dpkg.file(t, "1"))
	if out := r.step("verify"); out != "" {
		t.Errorf("dpkg --verify says\n%s", out)
	}
	r.done()
	// The harness asks the program in the usual place.
	if err := os.Symlink("/usr/bin/netfreeze", netfreeze); err != nil {
		t.Fatal(err)
	}
}

// testDocsInstall goes through "A checkpoint, step by step", as a recipe whose second
// bundle is in /bundle2.
func testDocsInstall(t *testing.T) {
	r := open(t, "install.md", "install")
	r.step("configure")
	mustRun(t, "", "", "netfreeze", "uninstall")
	mustRun(t, "", "", "netfreeze", "install", "--runtime", "runc", "--stop-after-dump", "kill")
	t.Cleanup(func() { mustRun(t, "", "", "netfreeze", "uninstall", "--force") })
	k := newKitchen(t)
	k.namespace()
	k.bundle()
	t.Cleanup(func() {
		_, _ = runIn("", "", "runc", "delete", "--force", "web")
		_, _ = runIn("", "", "ip", "netns", "del", "web2")
		_, _ = runIn("", "", "ip", "netns", "add", "web") // which the kitchen removes
		mustRun(t, "", "", "rm", "-rf", "/bundle2", "/img")
	})
	port := networkOf(k.topo) + "-web"
	// What the page says in words: the address moves, and so does the bundle. It has no /dev
	// of its own: what runc has made there is part of it.
	words := strings.Join([]string{
		"cp -a /srv/web /bundle2",
		`sed -i 's|/run/netns/web"|/run/netns/web2"|' /bundle2/config.json`,
		"ip -n web link del eth0",
		"ip netns del web",
		"ip link add " + port + " type veth peer name eth0 address " + recipeMAC + " netns web2",
		"ip link set " + port + " master " + networkOf(k.topo) + "-br up",
		"ip -n web2 addr add " + recipeAddress.String() + "/24 dev eth0",
		"ip -n web2 link set eth0 up",
	}, "\n")
	recipe, _ := readPage(t, "callers.md", pages.Recipe)
	k.serve(recipe["runc start"], r.next("checkpoint")+words+"\n"+r.next("restore"))
	r.done()
}

// testDocsReadme goes through "A real container in five minutes"; while the container runs,
// through the commands of doctor.md, and once it has ended, through those of inspect.md.
func testDocsReadme(t *testing.T) {
	r := open(t, "README.md", "readme")
	t.Cleanup(func() {
		_, _ = runIn("", "", "runc", "delete", "--force", "web")
		for _, left := range []string{"web", "web2"} {
			_, _ = runIn("", "", "ip", "netns", "del", left)
		}
		_, _ = runIn("", "", "ip", "link", "del", "br-web")
		mustRun(t, "", "", "rm", "-rf", "/srv/web", "/srv/img")
		mustRun(t, "", "", "netfreeze", "uninstall", "--force")
	})
	r.step("container")
	r.step("network")
	text := readConf(t, filepath.Join(docs, "README.md"))
	const command = "busybox nc 10.99.0.2 7000"
	contains(t, "README.md", text, "`"+command+"`")
	poll(t, patience, "the server", func() error { return dialOnce("10.99.0.2:7000") })
	peer := newTerminal(t, "", command)
	peer.send("before")
	peer.await("before")

	d := open(t, "doctor.md", "doctor")
	d.fill = strings.NewReplacer("TARGET", "web", "DIR", "/")
	if wrong := failing.FindString(d.step("all")); wrong != "" {
		t.Errorf("doctor says %s", wrong)
	}
	d.done()

	r.step("checkpoint")
	poll(t, patience, "the end that the page speaks of", func() error {
		if all := mustRun(t, "", "", "netfreeze", "status"); !strings.Contains(all, "ended") {
			return errors.New(all)
		}
		return nil
	})
	i := open(t, "inspect.md", "inspect")
	i.fill = strings.NewReplacer("PATH", "/srv/img", "NETNS", "web")
	contains(t, "inspect", i.step("all"), "10.99.0.2:7000", `"restorable": true`)
	i.done()
	peer.send("meanwhile")
	r.step("restore")
	peer.await("meanwhile")
	peer.send("after")
	peer.await("after")
	if all := mustRun(t, "", "", "netfreeze", "status"); strings.Contains(all, "netns ") {
		t.Errorf("something is left:\n%s", all)
	}
	r.done()
}

func testDocsKubernetes(t *testing.T) {
	r := open(t, "kubernetes.md", "kubernetes")
	t.Cleanup(func() {
		mustRun(t, "", "", "netfreeze", "expect", "--pod", "shop/db-0", "--pod", "shop/web-0", "--cancel")
	})
	for _, part := range []string{"announce", "expect", "several"} {
		r.step(part)
	}
	contains(t, "expect --list", mustRun(t, "", "", "netfreeze", "expect", "--list"), "shop/db-0", "shop/web-0")
	r.done()
}

func testDocsGuard(t *testing.T) {
	r := open(t, "podman.md", "podman")
	r.step("guard")
	contains(t, "guard --list", mustRun(t, "", "", "netfreeze", "guard", "--list"), "10.88.0.7")
	mustRun(t, "", "", "netfreeze", "guard", "--off", "10.88.0.7")
	r.done()
}

// testDocsConfiguration has the program check each example of a configuration file.
func testDocsConfiguration(t *testing.T) {
	all, err := filepath.Glob(filepath.Join(docs, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, path := range all {
		blocks, err := pages.Read(readConf(t, path))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, b := range blocks {
			if b.Kind != pages.Config {
				continue
			}
			count++
			writeConf(t, filepath.Join(criuDir, "example.toml"), b.Code)
			mustRun(t, "", "", "netfreeze", "config", "check", filepath.Join(criuDir, "example.toml"))
		}
	}
	if count == 0 {
		t.Error("there is no example")
	}
	if err := os.Remove(filepath.Join(criuDir, "example.toml")); err != nil {
		t.Fatal(err)
	}
}
