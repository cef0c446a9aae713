// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/install"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// TestMain gives the tests namespaces and a /run of their own.
func TestMain(m *testing.M) {
	if kind := os.Getenv(childVar); kind != "" {
		child(kind)
	}
	nstest.Main(m)
}

// hook is where the script is in a fixture.
const hook = "/usr/local/libexec/criu-netfreeze/netfreeze-hook"

// fixture is the root directory of a machine on which everything is as it should be.
type fixture struct {
	*testing.T
	Host
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t, Host{Root: t.TempDir()}}
	for _, program := range []string{hook, "/usr/sbin/criu", "/usr/sbin/runc", "/usr/bin/crun", "/opt/cni/bin/netfreeze-cni", "/usr/local/libexec/criu-netfreeze/pre-dump"} {
		f.write(program, "", 0o755)
	}
	f.install("runc", "crun")
	f.write("/etc/criu/netfreeze.toml", "policy = \"kill\"\n", 0o644)
	f.write("/etc/cni/net.d/10-net.conflist", `{"plugins": [{"type": "netfreeze-cni"}, {"type": "bridge"}]}`, 0o644)
	return f
}

func (f *fixture) write(path, text string, mode os.FileMode) {
	f.Helper()
	nstest.Must(f, os.MkdirAll(filepath.Dir(f.on(path)), 0o755))
	nstest.Must(f, os.WriteFile(f.on(path), []byte(text), mode))
	nstest.Must(f, os.Chmod(f.on(path), mode))
}

func (f *fixture) read(path string) string {
	f.Helper()
	text, err := os.ReadFile(f.on(path))
	nstest.Must(f, err)
	return string(text)
}

func (f *fixture) remove(path string) {
	f.Helper()
	nstest.Must(f, os.Remove(f.on(path)))
}

// add puts lines at the end of a file.
func (f *fixture) add(path, lines string) { f.write(path, f.read(path)+lines, 0o644) }

func (f *fixture) install(runtimes ...string) {
	f.Helper()
	p, err := install.PlanInstall(install.Options{Root: f.Root, Runtimes: runtimes, Hook: hook, NetworkLock: "skip"})
	nstest.Must(f, err)
	nstest.Must(f, p.Apply())
}

// TestHealthy finds nothing on a machine where everything is as it should be.
func TestHealthy(t *testing.T) {
	f := newFixture(t)
	for _, found := range Machine(&f.Host) {
		if found.Verdict != OK && found.Verdict != Note {
			t.Errorf("%+v", found)
		}
	}
}

// TestMachine breaks one thing after the other: what is wrong comes first, with its
// remedy, and --fix mends what it says it can.
func TestMachine(t *testing.T) {
	const runcConf, crunConf, defaultConf = "/etc/criu/runc.conf", "/etc/criu/crun.conf", "/etc/criu/default.conf"
	for name, test := range map[string]struct {
		broken  func(f *fixture)
		verdict Verdict
		subject string
		text    string
		remedy  string
		fixed   bool // whether --fix mends it
	}{
		"no CRIU": {
			func(f *fixture) { f.remove("/usr/sbin/criu") },
			Fails, "criu", "not installed", "install CRIU 4.2 or newer", false,
		},
		"not installed": {
			func(f *fixture) { f.remove(runcConf) },
			Fails, "runc", "there is no /etc/criu/runc.conf", "netfreeze install --runtime runc", true,
		},
		"no line of ours": {
			func(f *fixture) { f.write(runcConf, "file-locks\n", 0o644) },
			Fails, "runc, crun", "does not list our hook", "netfreeze install --runtime runc", true,
		},
		"only criu": {
			func(f *fixture) {
				for _, file := range []string{"/usr/sbin/runc", "/usr/bin/crun", runcConf} {
					f.remove(file)
				}
			},
			Fails, "criu", "there is no /etc/criu/default.conf", "netfreeze install --runtime default", true,
		},
		"crun.conf shadows": {
			func(f *fixture) { f.write(crunConf, "file-locks\n", 0o644) },
			Fails, "crun", "hides /etc/criu/runc.conf from crun", "netfreeze install --runtime crun", true,
		},
		"hook missing": {
			func(f *fixture) { f.remove(hook) },
			Fails, runcConf + ":2", "every dump and restore fails", "make install", false,
		},
		"hook not executable": {
			func(f *fixture) { f.write(hook, "", 0o644) },
			Fails, runcConf + ":2", "not an executable file", "make install", false,
		},
		"hook moved": {
			func(f *fixture) {
				f.write(runcConf, strings.ReplaceAll(f.read(runcConf), "/usr/local/libexec", "/opt"), 0o644)
			},
			Fails, runcConf + ":2", "/opt/criu-netfreeze/netfreeze-hook", "netfreeze install", true,
		},
		"markers": {
			func(f *fixture) {
				f.write(runcConf, strings.ReplaceAll(f.read(runcConf), "# END netfreeze\n", ""), 0o644)
			},
			Fails, runcConf + ":1", "our block was edited", "take the lines of the block out by hand", false,
		},
		"tcp-close": {
			func(f *fixture) { f.add(runcConf, "tcp-close\n") },
			Fails, runcConf + ":6", "tcp-close", "take the line out", false,
		},
		"dashes": {
			func(f *fixture) { f.add(runcConf, "--file-locks\n") },
			Fails, runcConf + ":6", "exits with an error", "mend the line", false,
		},
		"CR LF": {
			func(f *fixture) { f.write(defaultConf, "file-locks\r\n", 0o644) },
			Fails, defaultConf + ":1", "CR LF", "mend the line", false,
		},
		"two locks": {
			func(f *fixture) { f.add(runcConf, "network-lock nftables\n") },
			Warning, runcConf + ":6", "stands after our skip and wins", "take the line out", false,
		},
		"skip-in-flight": {
			func(f *fixture) { f.add(runcConf, "skip-in-flight\n") },
			Warning, runcConf + ":6", "skip-in-flight", "take the line out", false,
		},
		"no tcp-established": {
			func(f *fixture) {
				f.write(runcConf, strings.ReplaceAll(f.read(runcConf), "tcp-established\n", ""), 0o644)
			},
			Warning, runcConf, "lines of our block were changed", "netfreeze install --runtime runc", true,
		},
		"listed twice": {
			func(f *fixture) { f.add(runcConf, "action-script "+hook+"\n") },
			Warning, "runc, crun", "listed twice, in /etc/criu/runc.conf:2 and in /etc/criu/runc.conf:6", "take one of the lines out", false,
		},
		"in two files": {
			func(f *fixture) { f.install("default") },
			Warning, "runc, crun", "runs twice", "netfreeze uninstall --runtime default", false,
		},
		"order": {
			func(f *fixture) { f.write(runcConf, "action-script /opt/other\n"+f.read(runcConf), 0o644) },
			Warning, runcConf + ":1", "CRIU runs /opt/other after our script", "netfreeze install --runtime runc", true,
		},
		"order across files": {
			func(f *fixture) { f.write(defaultConf, "action-script /opt/other\n", 0o644) },
			Warning, defaultConf + ":1", "CRIU runs /opt/other after our script", "list our script before that line", false,
		},
		"split": {
			func(f *fixture) {
				f.write(runcConf, "action-script /usr/local/libexec/criu-netfreeze/pre-dump\ntcp-established\nnetwork-lock skip\n", 0o644)
			},
			Fails, runcConf + ":1", "post-dump, pre-restore, post-resume is not listed", "netfreeze install", false,
		},
		"cgroups": {
			func(f *fixture) {
				f.remove(runcConf)
				f.remove("/usr/sbin/runc")
				f.install("crun")
				f.write("/sys/fs/cgroup/cgroup.controllers", "", 0o644)
			},
			Warning, "crun", "manage-cgroups ignore", "netfreeze install --runtime crun --manage-cgroups ignore", true,
		},
		"CRIU's log": {
			func(f *fixture) { f.add(runcConf, "log-file /var/log/criu/log\n") },
			Fails, runcConf + ":6", "does not exist: CRIU does not start", "mkdir -p /var/log/criu", false,
		},
		"netfreeze.toml": {
			func(f *fixture) { f.write("/etc/criu/netfreeze.toml", "policy = \"kil\"\n", 0o644) },
			Fails, "/etc/criu/netfreeze.toml:1", `not one of "hold"`, "mend the line", false,
		},
		"netfreeze.toml of others": {
			func(f *fixture) { f.write("/etc/criu/netfreeze.toml", "policy = \"kill\"\n", 0o666) },
			Fails, "/etc/criu/netfreeze.toml", "can be written by others than root", "look at what it says", false,
		},
		"our log": {
			func(f *fixture) {
				f.write("/etc/criu/netfreeze.toml", "[log]\nfile = \"/var/log/nf/log\"\n", 0o644)
			},
			Warning, "/var/log/nf/log", "does not exist", "mkdir -p /var/log/nf", false,
		},
		"CNI program": {
			func(f *fixture) { f.remove("/opt/cni/bin/netfreeze-cni") },
			Fails, "/etc/cni/net.d/10-net.conflist", "no pod can be set up", "make install", false,
		},
		"CNI list": {
			func(f *fixture) {
				f.write("/etc/cni/net.d/20-other.conflist", `{"plugins": [{"type": "bridge"}]}`, 0o644)
			},
			Warning, "/etc/cni/net.d/20-other.conflist", "is not in it", `put {"type": "netfreeze-cni"`, false,
		},
		"CNI order": {
			func(f *fixture) {
				f.write("/etc/cni/net.d/10-net.conflist", `{"plugins": [{"type": "bridge"}, {"type": "netfreeze-cni"}]}`, 0o644)
			},
			Warning, "/etc/cni/net.d/10-net.conflist", "number 2 of its plugins", "move netfreeze-cni to the first place", false,
		},
		"podman's annotation": {
			func(f *fixture) {
				f.write("/usr/bin/podman", "", 0o755)
				f.write("/etc/containers/containers.conf", "[containers]\nannotations = [\"org.criu.config=/etc/criu/x.conf\"]\n", 0o644)
			},
			Warning, "/etc/containers/containers.conf", "org.criu.config", "list our lines in the file that it names", false,
		},
		"OCI hook": {
			func(f *fixture) {
				f.write("/usr/bin/podman", "", 0o755)
				f.write("/etc/containers/oci/hooks.d/n.json", `{"hook": {"path": "/opt/netfreeze-oci"}}`, 0o644)
			},
			Fails, "/etc/containers/oci/hooks.d/n.json", "is no executable file", "make install", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			test.broken(f)
			found := Machine(&f.Host)
			first := found[0]
			if first.Verdict != test.verdict || first.Subject != test.subject || !strings.Contains(first.Text, test.text) || !strings.Contains(first.Remedy, test.remedy) {
				t.Errorf("found first: %+v", first)
			}
			for _, bad := range found {
				if bad.Verdict != OK && bad.Verdict != Note && bad.Text == "" {
					t.Errorf("without a text: %+v", bad)
				}
			}
			if first.Fixable != test.fixed {
				t.Errorf("whether --fix mends it: %v, want %v", first.Fixable, test.fixed)
			}
			if !test.fixed {
				return
			}
			for _, done := range Fix(found) {
				if done.Err != "" {
					t.Errorf("fix: %+v", done)
				}
			}
			for _, left := range Machine(&f.Host) {
				if left.Verdict == Fails || left.Verdict == Warning {
					t.Errorf("after --fix: %+v", left)
				}
			}
		})
	}
}

// TestEngines finds out which runtime each engine uses.
func TestEngines(t *testing.T) {
	f := newFixture(t)
	for _, program := range []string{"/usr/bin/podman", "/usr/bin/containerd", "/usr/bin/crio", "/usr/bin/dockerd"} {
		f.write(program, "", 0o755)
	}
	check := func(want ...string) {
		t.Helper()
		for i, e := range f.engines() {
			if got := e.name + " " + e.runtime; got != want[i] {
				t.Errorf("%s, want %s", got, want[i])
			}
		}
	}
	check("podman crun", "containerd runc", "CRI-O crun", "docker runc")
	f.write("/etc/containers/containers.conf", "[engine]\nruntime = \"runc\"\n", 0o644)
	f.write("/etc/containerd/config.toml", `version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "c"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.c]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.c.options]
BinaryName = "/opt/crun"
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "/etc/other"
`, 0o644)
	f.write("/etc/crio/crio.conf.d/10.conf", "[crio.runtime]\ndefault_runtime = \"kata\"\n", 0o644)
	f.write("/etc/docker/daemon.json", `{"default-runtime": "my", "runtimes": {"my": {"path": "/usr/bin/crun"}}}`, 0o644)
	check("podman runc", "containerd crun", "CRI-O kata", "docker crun")
	f.write("/etc/other/x.conflist", `{"plugins": []}`, 0o644)
	found := Machine(&f.Host)
	if first := found[0]; first.Verdict != Warning || first.Subject != "CRI-O" {
		t.Errorf("%+v", first)
	}
	if second := found[1]; second.Subject != "/etc/other/x.conflist" {
		t.Errorf("%+v", second)
	}
}
