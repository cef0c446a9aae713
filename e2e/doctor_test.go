// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// finding is a line of netfreeze doctor.
type finding struct{ Group, Verdict, Subject, Text, Remedy string }

// doctor runs netfreeze doctor and returns what it found. Its exit code must say whether
// anything fails.
func doctor(t *testing.T, args ...string) (found []finding) {
	t.Helper()
	cmd := exec.Command(netfreeze, append([]string{"doctor", "-o", "json"}, args...)...)
	out, err := cmd.Output()
	var view struct {
		OK       bool
		Findings []finding
	}
	if bad := json.Unmarshal(out, &view); bad != nil {
		t.Fatalf("netfreeze doctor %v did not print JSON: %v, %v: %s", args, bad, err, out)
	}
	if code := cmd.ProcessState.ExitCode(); view.OK != (code == 0) || view.OK != (view.Findings[0].Verdict != "fails") {
		t.Errorf("exit code %d, ok %v: %+v", code, view.OK, view.Findings[0])
	}
	return view.Findings
}

// TestDoctor breaks what a dump needs, one thing after the other: what is wrong comes
// first, with its remedy, and --fix mends what it can.
func TestDoctor(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("crun"), runtimeEngine("runc"))
	const log = "/tmp/criu-of-doctor.log"
	if f, err := os.OpenFile(filepath.Join(criuDir, "runc.conf"), os.O_APPEND|os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString("log-file " + log + "\n")
		_ = f.Close()
	}
	for _, f := range doctor(t) {
		t.Logf("%+v", f)
		if f.Verdict == "fails" || f.Verdict == "warning" && (f.Group == "configuration" || f.Group == "kernel" || f.Group == "criu") {
			t.Errorf("on a machine that is in order: %+v", f)
		}
	}
	if _, err := os.Stat(log); err == nil {
		t.Error("CRIU has written a log of its own")
	}
	conf := func(name string) string { return filepath.Join(criuDir, name) }
	write := func(path, text string) func() {
		return func() {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	run := func(argv ...string) func() { return func() { mustRun(t, "", "", argv...) } }
	runc, err := os.ReadFile(conf("runc.conf"))
	if err != nil {
		t.Fatal(err)
	}
	crun, err := os.ReadFile(conf("crun.conf"))
	if err != nil {
		t.Fatal(err)
	}
	const damaged = stateDir + "/9999999@1.json"
	for _, test := range []struct {
		name                          string
		broken, mended                func() // mended is nil where --fix does it
		verdict, subject, text, cured string
	}{
		{
			"hook deleted", run("mv", hook, hook+".away"), run("mv", hook+".away", hook),
			"fails", ".conf:2", "every dump and restore fails", "make install",
		},
		{
			"hook of another owner", run("chown", "1000", hook), run("chown", "0", hook),
			"fails", ".conf:2", "does not belong to root", "make install",
		},
		{
			"hook not executable", run("chmod", "644", hook), run("chmod", "755", hook),
			"fails", ".conf:2", "is not an executable file", "make install",
		},
		{
			"crun.conf shadows", write(conf("crun.conf"), "file-locks\n"), nil,
			"fails", "crun", "hides /etc/criu/runc.conf from crun", "netfreeze install --runtime crun",
		},
		{
			"order", write(conf("runc.conf"), "action-script /bin/true\n"+string(runc)), nil,
			"warning", "runc.conf:1", "CRIU runs /bin/true after our script", "netfreeze install --runtime runc",
		},
		{
			"CRIU cannot read", write(conf("default.conf"), "--no-such-option\n"), run("rm", conf("default.conf")),
			"fails", "criu", "it does not start", "criu --version",
		},
		{
			"CRIU cannot read a runtime's file", write(conf("runc.conf"), string(runc)+"network-lock fast\n"), write(conf("runc.conf"), string(runc)),
			"fails", "runc.conf", "Invalid value for --network-lock: fast", "mend the line",
		},
		{
			"no such back end", func() {
				write(conf("netfreeze.toml"), "backend = \"iptables-legacy\"\n")()
				mustRun(t, "", "", "mount", "--bind", "/dev/null", "/usr/sbin/xtables-legacy-multi")
			}, func() {
				mustRun(t, "", "", "umount", "/usr/sbin/xtables-legacy-multi")
				write(conf("netfreeze.toml"), "policy = \"kill\"\n")()
			},
			"fails", "back end iptables-legacy", "every dump fails", `set backend = "nftables"`,
		},
		{
			"netfreeze.toml of others", run("chmod", "666", conf("netfreeze.toml")), run("chmod", "600", conf("netfreeze.toml")),
			"fails", "netfreeze.toml", "can be written by others than root", "look at what it says",
		},
		{
			"state directory", run("install", "-d", "-m", "755", stateDir), nil,
			"fails", stateDir, "its mode is 0755", "chmod 0700",
		},
		{
			"damaged record", func() {
				mustRun(t, "", "", "install", "-d", "-m", "700", stateDir)
				write(damaged, `{"netns": {"Dev": 1, "Ino": 1}, "x`)()
			}, nil,
			"warning", damaged, "it is damaged", "remove the file: its namespace is gone",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.broken()
			first := doctor(t)[0]
			if test.verdict == "warning" { // a lab has others of its own
				for _, f := range doctor(t) {
					if strings.HasSuffix(f.Subject, test.subject) && f.Verdict == "warning" {
						first = f
						break
					}
				}
			}
			if first.Verdict != test.verdict || !strings.HasSuffix(first.Subject, test.subject) || !strings.Contains(first.Text, test.text) || !strings.Contains(first.Remedy, test.cured) {
				t.Errorf("found first: %+v", first)
			}
			if test.mended != nil {
				test.mended()
			} else {
				out, _ := runIn("", "", netfreeze, "doctor", "--fix")
				if !strings.HasPrefix(out, "fixed: ") {
					t.Errorf("netfreeze doctor --fix: %s", out)
				}
			}
			for _, f := range doctor(t) {
				if f.Verdict == "fails" || strings.HasSuffix(f.Subject, test.subject) && f.Verdict == "warning" {
					t.Errorf("it was mended, but: %+v", f)
				}
			}
			write(conf("runc.conf"), string(runc))()
			write(conf("crun.conf"), string(crun))()
		})
	}
}

// TestDoctorContainer asks whether a dump would work, and dumps: both say the same.
func TestDoctorContainer(t *testing.T) {
	withNetfreeze(t, settings{policy: "run"}, plainCRIU{})
	outside := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", outside)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			defer c.Close() // at the end of the test
		}
	}()
	const loopback = `$a = pack_sockaddr_in(7000, inet_aton("127.0.0.1")); `
	for _, test := range []struct {
		name    string
		program string // in perl, before it sleeps
		text    string // of doctor's first finding, "" if nothing fails
		criu    string // what CRIU's log says then
	}{
		{"listener", `socket(S, 2, 1, 0) && bind(S, pack_sockaddr_in(7000, INADDR_ANY)) && listen(S, 5) or die`, "", ""},
		{"UDP", `socket(S, 2, 2, 0) && bind(S, pack_sockaddr_in(7000, INADDR_ANY)) or die`, "", ""},
		{"packet", `socket(S, 17, 2, 0) or die`, "", ""},
		{"raw", `socket(S, 2, 3, 255) or die`, "", ""},
		{"MPTCP", `socket(S, 2, 1, 262) && bind(S, pack_sockaddr_in(7000, INADDR_ANY)) && listen(S, 5) or die`, "CRIU cannot dump MPTCP sockets, here 0.0.0.0:7000", "Unsupported proto 262"},
		{"vsock", `socket(S, 40, 1, 0) or die`, "CRIU cannot dump vsock sockets", "Unknown socket"},
		{"XDP", `socket(S, 44, 3, 0) or die`, "CRIU cannot dump AF_XDP sockets", "Unknown socket"},
		{"handshake", loopback + `socket(S, 2, 1, 0) && bind(S, $a) && listen(S, 5) && socket(C, 2, 1, 0) && connect(C, $a) or die`, "have waited to be accepted", "In-flight connection"},
		{"unix", `socket(S, 1, 1, 0) && connect(S, pack_sockaddr_un("` + outside + `")) or die`, "CRIU cannot dump one half of it", "External socket is used"},
		{"netlink", `socket(S, 16, 3, 0) && send(S, pack("LSSLLL", 20, 18, 0x301, 1, 0, 0), 0, pack("SSLL", 16, 0, 0, 0)) or die`, "", "has data to read"},
		{"io_uring", `$p = "\0" x 120; syscall(425, 1, $p) >= 0 or die`, "CRIU cannot dump [io_uring]", "send_fds failed"},
		{"fuse", `open(F, "+<", "/dev/fuse") or die`, "CRIU cannot dump the device /dev/fuse", "10:229"},
	} {
		t.Run(test.name, func(t *testing.T) {
			app := newTopology(t).newHost("app")
			if test.name == "fuse" { // the lab has none
				mustRun(t, "", "", "mknod", "-m", "666", "/dev/fuse", "c", "10", "229")
				t.Cleanup(func() { _ = os.Remove("/dev/fuse") })
			}
			k := startPerl(t, app, test.program)
			found := doctor(t, fmt.Sprint(k.pid))
			first := found[0]
			t.Logf("%+v", first)
			if test.text == "" && first.Verdict == "fails" || !strings.Contains(first.Text, test.text) {
				t.Errorf("found first: %+v", first)
			}
			if test.name == "netlink" && (first.Verdict != "warning" || !strings.Contains(first.Text, "has not read")) {
				t.Errorf("found first: %+v", first)
			}
			if test.text != "" && !strings.Contains(first.Subject, fmt.Sprintf("pid %d (perl)", k.pid)) {
				t.Errorf("it does not name the process: %+v", first)
			}
			if byNetNS := doctor(t, app.netns)[0]; byNetNS.Text != first.Text {
				t.Errorf("by the namespace: %+v", byNetNS)
			}
			err := k.engine.dump(k, true)
			log, _ := os.ReadFile(filepath.Join(k.images(), "dump.log"))
			if (err == nil) != (test.criu == "") || !strings.Contains(string(log), test.criu) {
				t.Errorf("doctor found %q, and the dump says %v", first.Text, err)
			}
		})
	}
	t.Run("traced", func(t *testing.T) {
		k := startPerl(t, newTopology(t).newHost("app"), "1")
		strace := exec.Command("strace", "-p", fmt.Sprint(k.pid), "-o", "/dev/null")
		if err := strace.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = strace.Process.Kill(); _ = strace.Wait() }()
		poll(t, patience, "strace", func() error {
			if first := doctor(t, fmt.Sprint(k.pid))[0]; !strings.Contains(first.Text, fmt.Sprintf("it is traced by pid %d (strace)", strace.Process.Pid)) {
				return fmt.Errorf("found first: %+v", first)
			}
			return nil
		})
		if err := k.engine.dump(k, true); err == nil {
			t.Error("CRIU has dumped a task that was traced")
		}
	})
}

// TestDoctorHeld asks about a container in runc before a dump, by its id, and after it.
func TestDoctorHeld(t *testing.T) {
	runc := runtimeEngine("runc")
	withNetfreeze(t, settings{policy: "hold"}, runc)
	p := newPair(t, runc, true, few)
	for _, f := range doctor(t, p.dumped.id) {
		t.Logf("%+v", f)
		if f.Verdict == "fails" {
			t.Errorf("%+v", f)
		}
	}
	p.dump()
	p.dumped.awaitStop()
	first := doctor(t, p.dumped.id)[0]
	if first.Verdict != "fails" || !strings.Contains(first.Text, "is held: a dump of it is refused") || first.Remedy != "netfreeze thaw "+p.dumped.id {
		t.Errorf("%+v", first)
	}
	mustRun(t, "", "", netfreeze, "thaw", p.dumped.id)
	if first := doctor(t, p.dumped.id)[0]; first.Verdict == "fails" {
		t.Errorf("%+v", first)
	}
}

// startPerl starts a program on a host, as plain criu's tasks are started, and waits
// until it has done what it is to do.
func startPerl(t *testing.T, h *host, program string) *task {
	t.Helper()
	k := &task{t: t, engine: plainCRIU{}, id: "perl", host: h, dir: t.TempDir()}
	if err := os.MkdirAll(k.images(), 0o755); err != nil {
		t.Fatal(err)
	}
	ready := filepath.Join(k.dir, "ready")
	cmd := newCommand(t.Context(), h.netns, "perl", "-MSocket", "-e",
		program+`; open(R, ">", "`+ready+`") && close(R); sleep 1 while 1`)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.start(); err != nil {
		t.Fatal(err)
	}
	k.pid = cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(k.logFailure)
	t.Cleanup(func() { end(t, k.pid) })
	poll(t, patience, "perl", func() error {
		select {
		case err := <-ended:
			t.Skipf("this kernel has no such thing: %v", err)
		default:
		}
		_, err := os.Stat(ready)
		return err
	})
	return k
}
