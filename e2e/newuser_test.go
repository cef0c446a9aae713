// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// busyboxDeb is Debian's package, of which the lab has no copy.
var busyboxDeb = filepath.Join(build, "busybox-static.deb")

// installedHost makes this root that of a Debian machine on which people follow our pages:
// busybox is installed, podman has room for images on a file system that is none of an
// overlay, and what it expects of systemd is turned off. Nothing of ours is there.
func installedHost(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/usr/local", "/opt/cni", "/usr/libexec"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if strings.Contains(path, "netfreeze") {
				t.Fatalf("there is %s", path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(criuDir); err != nil { // which the lab makes
		t.Fatal(err)
	}
	mustRun(t, "", "", "dpkg", "-i", busyboxDeb)
	if err := unix.Mount("containers", "/var/lib/containers", "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	writeConf(t, "/etc/containers/containers.conf",
		"[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n[containers]\npids_limit = 0\nlog_driver = \"k8s-file\"\n")
	t.Setenv("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
	t.Setenv("DEBIAN_FRONTEND", "noninteractive")
}

// inInstalledHost runs a test in such a root, where there is what that needs.
func inInstalledHost(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if _, err := os.Stat(busyboxDeb); err != nil {
		t.Fatalf("Debian's busybox-static is needed: %v", err)
	}
	inPackageRoot(t, func(t *testing.T) {
		installedHost(t)
		test(t)
	})
}

// provide puts the package of a release, and no other, into a directory.
func provide(t *testing.T, dir, release string) {
	t.Helper()
	old, err := filepath.Glob(filepath.Join(dir, dpkg.files))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, "", "", "cp", dpkg.file(t, release), dir)
}

// terminal is a program that somebody types lines into.
type terminal struct {
	t     *testing.T
	in    io.Writer
	lines chan string
}

// newTerminal runs a command in a network namespace until the test's end.
func newTerminal(t *testing.T, netns, command string) *terminal {
	t.Helper()
	cmd := newCommand(t.Context(), netns, "bash", "-c", "exec "+strings.TrimSpace(command))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.start(); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, in: in, lines: make(chan string, 100)}
	go func() {
		defer close(term.lines)
		for read := bufio.NewScanner(out); read.Scan(); {
			term.lines <- read.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return term
}

func (term *terminal) send(line string) {
	term.t.Helper()
	if _, err := io.WriteString(term.in, line+"\n"); err != nil {
		term.t.Fatalf("the connection: %v", err)
	}
}

// await waits until a line comes, and no other before it.
func (term *terminal) await(want string) {
	term.t.Helper()
	begun := time.Now()
	select {
	case line, ok := <-term.lines:
		if !ok || line != want {
			term.t.Fatalf("the connection has %q (open: %v), want %q", line, ok, want)
		}
	case <-time.After(patience):
		term.t.Fatalf("the connection is silent, and %q should come", want)
	}
	term.t.Logf("%q came back after %s", want, time.Since(begun).Round(100*time.Microsecond))
}

// silent checks that nothing has come.
func (term *terminal) silent() {
	term.t.Helper()
	select {
	case line, ok := <-term.lines:
		term.t.Fatalf("the connection has %q (open: %v), and should be silent", line, ok)
	default:
	}
}

// contains checks that an output has words in it.
func contains(t *testing.T, of, output string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(output, w) {
			t.Errorf("%s lacks %q:\n%s", of, w, output)
		}
	}
}

// failing finds what a doctor says is wrong.
var failing = regexp.MustCompile(`(?m)^fails.*`)

// TestNewUser follows docs/quickstart.md, word for word, on a machine that has never seen
// us: from the package to a podman container whose connection survives, and back.
func TestNewUser(t *testing.T) {
	inInstalledHost(t, testNewUser)
}

func testNewUser(t *testing.T) {
	begun := time.Now()
	r := newReader(t, "quickstart.md", "newuser")
	provide(t, r.dir, "1")
	before := newUserFiles(t)

	r.step("install")
	contains(t, "runc.conf", readConf(t, filepath.Join(criuDir, "runc.conf")), "action-script /usr/libexec/criu-netfreeze/netfreeze-hook\n")
	if wrong := failing.FindString(r.step("doctor")); wrong != "" {
		t.Errorf("doctor says %s", wrong)
	}

	r.step("container")
	k := &kitchen{shell: r.shell, topo: newTopology(t)}
	k.peer = k.topo.describeHost("peer")
	k.peer.v4, k.peer.netns = netip.MustParseAddr("10.99.0.8"), k.topo.newNetns("peer")
	k.plug("br-web")
	poll(t, patience, "the server", func() error {
		return within(k.peer.netns, func() error { return dialOnce("10.99.0.7:7000") })
	})
	packets := startCapture(t, k.peer.netns, iface)
	from := time.Now()
	peer := newTerminal(t, k.peer.netns, r.next("peer"))
	peer.send("one")
	peer.await("one")
	if wrong := failing.FindString(r.step("check")); wrong != "" {
		t.Errorf("doctor says of the container: %s", wrong)
	}

	r.step("checkpoint")
	peer.send("two, while it is away")
	said := r.step("status")
	contains(t, "status", said, "guard", "10.99.0.7")
	for _, state := range []string{"held", "ended", "isolated", "orphaned", "leftover"} {
		if strings.Contains(said, state) {
			t.Errorf("status says %q, and the page that there is the guard alone:\n%s", state, said)
		}
	}
	contains(t, "inspect", r.step("inspect"), "web", "ESTAB", "10.99.0.7:7000", "10.99.0.8:", "tcp-established")
	peer.silent()

	r.step("restore")
	peer.await("two, while it is away")
	peer.send("three")
	peer.await("three")
	id := strings.TrimSpace(mustRun(t, "", "", "podman", "container", "inspect", "--format", "{{.Id}}", "web"))[:12]
	contains(t, "log", r.step("log"), id, "restored", "ended")
	contains(t, "report", r.step("report"), "restore of container "+id, "restored", "CRIU: pre-restore", "the network is thawed", "10.99.0.8:")

	contains(t, "status", r.step("hold"), "held")
	peer.send("four, while it is held")
	said, err := runIn("", "", "apt", "remove", "-y", "criu-netfreeze")
	if err == nil {
		t.Error("the package was removed while a container is held")
	}
	contains(t, "apt remove", said, "netfreeze thaw")
	provide(t, r.dir, "2")
	r.step("upgrade")
	dpkg.has(t, "2")
	contains(t, "status after the upgrade", mustRun(t, "", "", "netfreeze", "status"), "held")
	peer.silent()
	r.step("thaw")
	peer.await("four, while it is held")
	if err := packets.since(from).stray(); err != nil {
		t.Error(err)
	}

	r.step("remove")
	if tables := mustRun(t, "", "", "nft", "list", "tables"); strings.Contains(tables, "netfreeze") {
		t.Errorf("there is still %s", tables)
	}
	if _, err := exec.LookPath("netfreeze"); err == nil {
		t.Error("netfreeze is still there")
	}
	r.step("purge")
	compareFiles(t, "after the purge", before, newUserFiles(t))
	r.done()
	t.Logf("all of it took %s", time.Since(begun).Round(100*time.Millisecond))
}

// notOurs are files that apt and podman keep for themselves.
var notOurs = regexp.MustCompile(`^/(var/lib/apt|var/log/apt|etc/containers/networks|etc/cni)(/|\s|$)`)

// newUserFiles lists what could be ours.
func newUserFiles(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(rootFiles(t)) {
		if !notOurs.MatchString(line) {
			b.WriteString(line)
		}
	}
	return b.String()
}
