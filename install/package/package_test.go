// SPDX-License-Identifier: Apache-2.0

// Package packages tests what install/package/build makes: what is in the packages, and
// that Debian's and Fedora's linters and a second build find nothing. Installing them is
// tested end to end (e2e/package_test.go).
package packages

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// built is where the packages of this checkout are. They are built once, and so is their
// repetition, with which they are compared.
var built = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("make", "--no-print-directory", "-C", "../..", "packages-twice")
	// What a make around the tests was told is not meant for this one.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "DESTDIR", "PREFIX", "SYSCONFDIR", "CNIBINDIR"}, name)
	})
	out, err := cmd.CombinedOutput()
	return string(out), err
})

// find returns the one file in build/packages that fits a pattern.
func find(t *testing.T, pattern string) string {
	t.Helper()
	if out, err := built(); err != nil {
		t.Fatalf("make packages-twice: %v\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join("../../build/packages", pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}

// tool skips a test where a program is missing; testdata/lab/deps installs it on Debian.
func tool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is missing: testdata/lab/deps installs it on Debian", name)
	}
}

func output(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

var formats = []struct{ format, arch, pattern string }{
	{"deb", "amd64", "*_amd64.deb"},
	{"deb", "arm64", "*_arm64.deb"},
	{"rpm", "amd64", "*.x86_64.rpm"},
	{"rpm", "arm64", "*.aarch64.rpm"},
}

// pages and documents are listed one by one neither here nor in the configuration.
var many = regexp.MustCompile(`/usr/share/(man/man8/netfreeze-|doc/criu-netfreeze/docs/)[a-z-]+\.`)

// TestContents lists what is in the packages, with modes.
func TestContents(t *testing.T) {
	const program, file = "-rwxr-xr-x", "-rw-r--r--"
	common := map[string]string{
		"/usr/bin/netfreeze":                                     program,
		"/usr/libexec/criu-netfreeze/netfreeze-hook":             program,
		"/usr/libexec/criu-netfreeze/netfreeze-settler":          program,
		"/usr/libexec/criu-netfreeze/netfreeze-oci":              program,
		"/usr/libexec/criu-netfreeze/pre-dump":                   "-> netfreeze-hook",
		"/usr/libexec/criu-netfreeze/post-dump":                  "-> netfreeze-hook",
		"/usr/libexec/criu-netfreeze/pre-restore":                "-> netfreeze-hook",
		"/usr/libexec/criu-netfreeze/post-resume":                "-> netfreeze-hook",
		"/usr/share/criu-netfreeze/oci-hook.json":                file,
		"/usr/share/criu-netfreeze/alerts.yaml":                  file,
		"/etc/criu/netfreeze.toml":                               file,
		"/usr/lib/tmpfiles.d/criu-netfreeze.conf":                file,
		"/var/log/criu-netfreeze":                                "drwx------",
		"/usr/share/bash-completion/completions/netfreeze":       file,
		"/usr/share/fish/vendor_completions.d/netfreeze.fish":    file,
		"/usr/share/man/man8/netfreeze.8.gz":                     file,
		"/usr/share/doc/criu-netfreeze/copyright":                file,
		"/usr/share/doc/criu-netfreeze/README.md":                file,
		"/usr/share/doc/criu-netfreeze/SECURITY.md":              file,
		"/usr/share/doc/criu-netfreeze/CHANGELOG.md":             file,
		"/usr/share/doc/criu-netfreeze/criu-netfreeze.spdx.json": file,
	}
	only := map[string]map[string]string{
		"deb": {
			"/usr/lib/cni/netfreeze-cni":                        program,
			"/etc/default/criu-netfreeze":                       file,
			"/usr/share/zsh/vendor-completions/_netfreeze":      file,
			"/usr/share/doc/criu-netfreeze/changelog.Debian.gz": file,
			"/usr/share/doc/criu-netfreeze/changelog.gz":        file,
			"/usr/share/lintian/overrides/criu-netfreeze":       file,
		},
		"rpm": {
			"/usr/libexec/cni/netfreeze-cni":             program,
			"/etc/sysconfig/criu-netfreeze":              file,
			"/usr/share/zsh/site-functions/_netfreeze":   file,
			"/usr/share/licenses/criu-netfreeze/LICENSE": file,
		},
	}
	for _, f := range formats {
		t.Run(f.format+"/"+f.arch, func(t *testing.T) {
			path := find(t, f.pattern)
			listing := []string{"dpkg-deb", "--contents", path}
			if f.format == "rpm" {
				listing = []string{"rpm", "--query", "--list", "--verbose", "--package", path}
			}
			tool(t, listing[0])
			want := map[string]string{}
			for _, m := range []map[string]string{common, only[f.format]} {
				for path, mode := range m {
					want[path] = mode
				}
			}
			got, docs := map[string]string{}, 0
			for line := range strings.Lines(output(t, listing...)) {
				fields := strings.Fields(line)
				at := slices.IndexFunc(fields, func(s string) bool { return strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") })
				if at < 0 {
					t.Fatalf("unexpected line %q", line)
				}
				path := strings.TrimSuffix(strings.TrimPrefix(fields[at], "."), "/")
				mode := fields[0]
				if !strings.Contains(line, "root") {
					t.Errorf("it is not root's: %s", line)
				}
				switch {
				case many.MatchString(path) && mode == file:
					docs++
				case mode[0] == 'l':
					got[path] = strings.Join(fields[at+1:], " ")
				case mode[0] != 'd' || path == "/var/log/criu-netfreeze":
					got[path] = mode
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			pages, _ := filepath.Glob("../../docs/man/netfreeze-*.8")
			guides, _ := filepath.Glob("../../docs/*.md")
			if docs != len(pages)+len(guides) {
				t.Errorf("%d manual pages and documents, want %d and %d", docs, len(pages), len(guides))
			}
		})
	}
}

// TestConfiguration has both package managers keep what an administrator changes.
func TestConfiguration(t *testing.T) {
	for _, tc := range []struct {
		argv []string
		want string
	}{
		{[]string{"dpkg-deb", "--info", find(t, "*_amd64.deb"), "conffiles"}, "/etc/criu/netfreeze.toml\n/etc/default/criu-netfreeze\n"},
		{[]string{"rpm", "--query", "--package", find(t, "*.x86_64.rpm"), "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]"}, "/etc/criu/netfreeze.toml cn\n/etc/sysconfig/criu-netfreeze cn\n"},
		{[]string{"dpkg-deb", "--field", find(t, "*_amd64.deb"), "Recommends"}, "criu, nftables | iptables\n"},
		{[]string{"dpkg-deb", "--field", find(t, "*_arm64.deb"), "Architecture"}, "arm64\n"},
	} {
		t.Run(strings.Join(tc.argv[:2], " "), func(t *testing.T) {
			tool(t, tc.argv[0])
			var conf strings.Builder
			for line := range strings.Lines(output(t, tc.argv...)) {
				if tc.argv[0] == "dpkg-deb" || strings.HasPrefix(line, "/etc/") && !strings.HasSuffix(line, " \n") {
					conf.WriteString(line)
				}
			}
			if got := conf.String(); strings.TrimSpace(got) != strings.TrimSpace(tc.want) {
				t.Errorf("it is\n%swant\n%s", got, tc.want)
			}
		})
	}
}

// TestScripts has a plain shell read the scripts, as they are packed.
func TestScripts(t *testing.T) {
	find(t, "*_amd64.deb")
	scripts, err := filepath.Glob("../../build/packages/stage-amd64/scripts/*")
	if err != nil || len(scripts) != 6 {
		t.Fatalf("%q, %v", scripts, err)
	}
	for _, script := range append(scripts, "build") {
		output(t, "sh", "-n", script)
		if strings.Contains(output(t, "cat", script), "#function# ") && script != "build" {
			t.Errorf("%s: its function was not put in", script)
		}
	}
}

// TestLint has each distribution's own judge find nothing, but for what is excused beside
// the packages' configuration, with a reason.
func TestLint(t *testing.T) {
	for _, f := range formats {
		t.Run(f.format+"/"+f.arch, func(t *testing.T) {
			path := find(t, f.pattern)
			argv := []string{"lintian", "--allow-root", "--tag-display-limit", "0", "--fail-on", "warning,error", path}
			if f.format == "rpm" {
				tool(t, "rpm")
				argv = []string{"rpmlint", path, "--config", "rpmlint.toml", "--strict"}
			}
			tool(t, argv[0])
			t.Log(output(t, argv...))
		})
	}
}

// TestSBOM finds the same document in a package and beside it, and every program of the
// package in it.
func TestSBOM(t *testing.T) {
	beside, err := os.ReadFile(find(t, "*_amd64.deb.spdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "dpkg-deb")
	dir := t.TempDir()
	output(t, "dpkg-deb", "--extract", find(t, "*_amd64.deb"), dir)
	inside, err := os.ReadFile(filepath.Join(dir, "usr/share/doc/criu-netfreeze/criu-netfreeze.spdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(beside), string(inside)); diff != "" {
		t.Error(diff)
	}
	var d struct {
		Files []struct {
			Name      string `json:"fileName"`
			Checksums []struct {
				Algorithm string `json:"algorithm"`
				Value     string `json:"checksumValue"`
			} `json:"checksums"`
		} `json:"files"`
	}
	if err := json.Unmarshal(inside, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Files) != 5 {
		t.Errorf("it describes %d files", len(d.Files))
	}
	for _, f := range d.Files {
		sum, _, _ := strings.Cut(output(t, "sha256sum", filepath.Join(dir, f.Name)), " ")
		if got := f.Checksums[1]; got.Algorithm != "SHA256" || got.Value != sum {
			t.Errorf("%s: the sum is %s, and it says %+v", f.Name, sum, got)
		}
	}
}
