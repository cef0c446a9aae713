// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

// Install, install again, uninstall, for each sample as each file, each time
// with a policy: what was there before is there again.
func TestInstallUninstallSamples(t *testing.T) {
	for name, content := range sampleFiles(t, "*.conf") {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t)
			for _, r := range Runtimes() {
				tr.write(conf(r), string(content), 0o640)
			}
			tr.write(config.Path, "policy = 'run'", 0o600)
			before := tr.snapshot()

			o := tr.options(Runtimes()...)
			o.NetworkLock, o.StopAfterDump = "skip", config.Kill
			tr.install(o)
			for _, r := range Runtimes() {
				tr.has(conf(r), "action-script "+hook+"\n")
			}
			tr.has(config.Path, "\npolicy = \"kill\"\n")
			installed := tr.snapshot()
			for _, c := range tr.install(o).Changes {
				if c.Action() != "kept" {
					t.Errorf("second install: %s %s", c.Path, c.Action())
				}
			}
			tr.same("second install", installed)
			tr.uninstall(Runtimes()...)
			tr.same("uninstall", before)
			tr.uninstall(Runtimes()...)
			tr.same("second uninstall", before)
		})
	}
}

func TestInstallIntoNothing(t *testing.T) {
	tr := newTree(t)
	before := tr.snapshot()
	o := tr.options("runc", "crun")
	o.StopAfterDump = config.Isolate
	p := tr.install(o)
	tr.has(conf("runc"), "tcp-established\n")
	tr.has(config.Path, "\npolicy = \"isolate\"\n")
	tr.missing(conf("crun"))
	if want := []string{"/etc/criu/crun.conf is missing: crun reads /etc/criu/runc.conf, which lists the hook"}; !cmp.Equal(p.Notes, want) {
		t.Errorf("notes: %q", p.Notes)
	}
	info, err := os.Stat(tr.path(conf("runc")))
	if err != nil || info.Mode() != defaultMode {
		t.Errorf("mode of a new file: %v, %v", info.Mode(), err)
	}

	// A later file also knows that the directory was made for it.
	tr.install(tr.options("default"))
	tr.uninstall("runc")
	tr.missing(conf("runc"))
	tr.has(config.Path, "isolate") // while a file lists the hook
	tr.uninstall(Runtimes()...)
	tr.same("uninstall", before)
}

func TestUninstallKeepsWhatWasAdded(t *testing.T) {
	tr := newTree(t)
	o := tr.options("runc")
	o.StopAfterDump = config.Run
	tr.install(o)
	for path, line := range map[string]string{conf("runc"): "verbosity 4\n", config.Path: "[[container]]\nid = \"a\"\n"} {
		content, err := os.ReadFile(tr.path(path))
		if err != nil {
			t.Fatal(err)
		}
		tr.write(path, string(content)+line, 0o644)
	}
	tr.uninstall(Runtimes()...)
	for path, want := range map[string]string{conf("runc"): "verbosity 4\n", config.Path: string(DefaultConfig) + "[[container]]\nid = \"a\"\n"} {
		if got, err := os.ReadFile(tr.path(path)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
	}
}

func TestUninstallKeepsChangedPolicy(t *testing.T) {
	tr := newTree(t)
	o := tr.options("runc")
	o.StopAfterDump = config.Run
	tr.install(o)
	content, err := os.ReadFile(tr.path(config.Path))
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(content, []byte("policy = \"run\"\n"), []byte("policy = \"kill\"\n"), 1)
	tr.write(config.Path, string(changed), 0o644)
	p := tr.uninstall(Runtimes()...)
	tr.has(config.Path, string(changed))
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0].Text, "changed since") {
		t.Errorf("warnings: %v", p.Warnings)
	}
}

func TestCrunFallsBackToRunc(t *testing.T) {
	t.Run("alone, runc.conf there", func(t *testing.T) {
		tr := newTree(t)
		tr.write(conf("runc"), "file-locks\n", 0o644)
		_, err := PlanInstall(tr.options("crun"))
		const want = "/etc/criu/crun.conf is missing, so that crun reads /etc/criu/runc.conf; a new file would hide that from it: install for runc,crun, or copy /etc/criu/runc.conf to /etc/criu/crun.conf first [NF801]"
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
	t.Run("alone, runc.conf has the hook", func(t *testing.T) {
		tr := newTree(t)
		tr.install(tr.options("runc"))
		tr.install(tr.options("crun"))
		tr.missing(conf("crun"))
	})
	t.Run("alone, neither there", func(t *testing.T) {
		tr := newTree(t)
		tr.install(tr.options("crun"))
		tr.has(conf("crun"), hook)
		tr.missing(conf("runc"))
	})
	t.Run("both there", func(t *testing.T) {
		tr := newTree(t)
		tr.write(conf("runc"), "", 0o644)
		tr.write(conf("crun"), "", 0o644)
		tr.install(tr.options("runc", "crun"))
		tr.has(conf("runc"), hook)
		tr.has(conf("crun"), hook)
	})
}

func TestInstallSplit(t *testing.T) {
	tr := newTree(t)
	o := tr.options("default")
	o.Split = true
	tr.install(o)
	dir := filepath.Dir(hook)
	tr.has(conf("default"), "\naction-script "+dir+"/pre-dump\naction-script "+dir+"/post-dump\naction-script "+dir+"/pre-restore\naction-script "+dir+"/post-resume\ntcp-established\n")
}

func TestInstallWarnsOfTwoFiles(t *testing.T) {
	tr := newTree(t)
	p := tr.install(tr.options("runc", "default"))
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0].String(), "/etc/criu/default.conf: CRIU reads this file also") {
		t.Errorf("warnings: %v", p.Warnings)
	}
}

func TestLinkedFile(t *testing.T) {
	tr := newTree(t)
	tr.write("/etc/elsewhere/real.conf", "file-locks\n", 0o640)
	tr.mkdir("/etc/criu")
	for path, target := range map[string]string{conf("runc"): "/etc/elsewhere/link", "/etc/elsewhere/link": "../elsewhere/real.conf"} {
		if err := os.Symlink(target, tr.path(path)); err != nil {
			t.Fatal(err)
		}
	}
	before := tr.snapshot()
	tr.install(tr.options("runc"))
	tr.has("/etc/elsewhere/real.conf", hook)
	tr.uninstall("runc")
	tr.same("uninstall", before)
}

func TestKeepsExtendedAttributes(t *testing.T) {
	tr := newTree(t)
	tr.write(conf("runc"), "", 0o644)
	if err := syscall.Setxattr(tr.path(conf("runc")), "user.label", []byte("x"), 0); err != nil {
		t.Logf("no extended attributes here: %v", err)
		return
	}
	tr.install(tr.options("runc"))
	value := make([]byte, 8)
	n, err := syscall.Getxattr(tr.path(conf("runc")), "user.label", value)
	if err != nil || string(value[:n]) != "x" {
		t.Errorf("got %q, %v", value[:max(n, 0)], err)
	}
}

// Whatever is wrong in one file, none is written, and everything is said.
func TestPlanInstallRefuses(t *testing.T) {
	tests := map[string]struct {
		prepare func(tree, *Options)
		want    []string
	}{
		"malformed markers": {func(t tree, _ *Options) {
			t.write(conf("runc"), "# END netfreeze\n", 0o644)
			t.write(conf("default"), "\n# BEGIN netfreeze\n", 0o644)
		}, []string{"/etc/criu/runc.conf:1: ", "/etc/criu/default.conf:2: "}},
		"unknown runtime":   {func(_ tree, o *Options) { o.Runtimes = []string{"podman"} }, []string{`runtime "podman": not one of runc, crun, default`}},
		"bad hook":          {func(_ tree, o *Options) { o.Hook = "/a b" }, []string{`action-script "/a b"`}},
		"missing hook":      {func(_ tree, o *Options) { o.Hook = "/none" }, []string{"no such file or directory: install the suite first (make install), or name the script with --hook"}},
		"hook no program":   {func(t tree, o *Options) { t.write("/f", "", 0o644); o.Hook = "/f" }, []string{"action-script /f is not an executable file"}},
		"hook a directory":  {func(_ tree, o *Options) { o.Hook = "/usr" }, []string{"action-script /usr is not an executable file"}},
		"bad configuration": {func(t tree, o *Options) { t.write(config.Path, "polic = 1", 0o644); o.StopAfterDump = config.Kill }, []string{`/etc/criu/netfreeze.toml:1: unknown key "polic"`}},
		"file a directory":  {func(t tree, _ *Options) { t.mkdir(conf("crun")) }, []string{"crun.conf is not a regular file"}},
		"too large":         {func(t tree, _ *Options) { t.write(conf("runc"), strings.Repeat("\n", maxSize+1), 0o644) }, []string{"runc.conf is larger than 1048576 bytes"}},
		"loop": {func(t tree, _ *Options) {
			t.mkdir("/etc/criu")
			if err := os.Symlink("runc.conf", t.path(conf("runc"))); err != nil {
				t.Fatal(err)
			}
		}, []string{"too many levels of symbolic links"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t)
			o := tr.options("runc", "default")
			tt.prepare(tr, &o)
			before := tr.snapshot()
			_, err := PlanInstall(o)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
			tr.same("refused", before)
		})
	}
}

func TestPlanUninstallRefusesMalformedMarkers(t *testing.T) {
	tr := newTree(t)
	tr.install(tr.options("default"))
	tr.write(conf("runc"), "# END netfreeze\n", 0o644)
	before := tr.snapshot()
	_, err := PlanUninstall(Options{Root: tr.root, Runtimes: Runtimes()})
	if err == nil || !strings.Contains(err.Error(), "/etc/criu/runc.conf:1: ") {
		t.Errorf("got %v", err)
	}
	tr.same("refused", before)
}

func TestApplyRefusesWhatChangedMeanwhile(t *testing.T) {
	tr := newTree(t)
	p, err := PlanInstall(tr.options("runc"))
	if err != nil {
		t.Fatal(err)
	}
	tr.write(conf("runc"), "file-locks\n", 0o644)
	before := tr.snapshot()
	if err := p.Apply(); err == nil || !strings.Contains(err.Error(), "0 of 1 files changed") {
		t.Errorf("got %v", err)
	}
	tr.same("refused", before)
}

func TestDiff(t *testing.T) {
	tests := []struct {
		name          string
		before, after string
		want          string
	}{
		{"same", "a\n", "a\n", ""},
		{"added on top", "1\n2\n3\n4\n", "x\ny\n1\n2\n3\n4\n", "--- /f\n+++ /f\n@@ -1,3 +1,5 @@\n+x\n+y\n 1\n 2\n 3\n"},
		{"taken out", "1\n2\n3\n4\n5\nx\n6", "1\n2\n3\n4\n5\n6", "--- /f\n+++ /f\n@@ -3,5 +3,4 @@\n 3\n 4\n 5\n-x\n 6\n\\ No newline at end of file\n"},
		{"emptied", "x", "", "--- /f\n+++ /f\n@@ -1,1 +0,0 @@\n-x\n\\ No newline at end of file\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Change{Path: "/f", Before: []byte(tt.before), After: []byte(tt.after)}
			if diff := cmp.Diff(tt.want, c.Diff()); diff != "" {
				t.Error(diff)
			}
		})
	}
	created := Change{Path: "/f", After: []byte("x\n")}
	if got, want := created.Diff(), "--- /dev/null\n+++ /f\n@@ -0,0 +1,1 @@\n+x\n"; got != want {
		t.Errorf("created: got %q", got)
	}
}

// TestCrunManagesCgroups gives crun, and nobody else, the line without which its
// restores fail on cgroup v2.
func TestCrunManagesCgroups(t *testing.T) {
	const line = "manage-cgroups=ignore\n"
	v2 := func(t *testing.T) tree {
		tr := newTree(t)
		tr.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n", 0o444)
		return tr
	}
	lines := func(tr tree, runtime string) int {
		content, err := os.ReadFile(tr.path(conf(runtime)))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(content), line)
	}

	tr := v2(t)
	tr.write(conf("runc"), "", 0o644)
	tr.write(conf("crun"), "", 0o644)
	p := tr.install(tr.options(Runtimes()...))
	if n := []int{lines(tr, "runc"), lines(tr, "crun"), lines(tr, "default")}; n[0] != 0 || n[1] != 1 || n[2] != 0 {
		t.Errorf("lines in runc.conf, crun.conf and default.conf: %v", n)
	}
	if !strings.Contains(strings.Join(p.Notes, "\n"), "which crun's restores need") {
		t.Errorf("notes: %q", p.Notes)
	}

	tr = v2(t) // crun reads runc.conf
	p = tr.install(tr.options("runc", "crun"))
	if n := lines(tr, "runc"); n != 0 || !strings.Contains(strings.Join(p.Notes, "\n"), "--manage-cgroups ignore adds it") {
		t.Errorf("%d lines, notes: %q", n, p.Notes)
	}

	tr = v2(t)
	tr.write(conf("crun"), "", 0o644)
	o := tr.options("crun")
	o.ManageCgroups = "soft"
	tr.install(o)
	if n := lines(tr, "crun"); n != 0 {
		t.Error("what the user asked for was changed")
	}

	tr = newTree(t) // without cgroup v2
	tr.write(conf("crun"), "", 0o644)
	tr.install(tr.options("crun"))
	if n := lines(tr, "crun"); n != 0 {
		t.Error("added where nobody needs it")
	}
}
