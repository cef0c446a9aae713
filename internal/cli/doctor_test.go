// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/doctor"
)

// TestDoctorText prints the worst first, each with its remedy, and colours for a
// terminal alone.
func TestDoctorText(t *testing.T) {
	v := doctorView{
		Fixed: []doctor.Fixed{{Did: "/etc/criu/runc.conf: changed"}, {Did: "remove x", Err: "no\npermission"}},
		Findings: []doctor.Finding{
			{Verdict: doctor.Fails, Subject: "crun", Text: "one\ntwo", Remedy: "netfreeze install", Fixable: true},
			{Verdict: doctor.Note, Subject: "evil\x1b[2J", Text: "text", Remedy: "wait", Fixable: true},
			{Verdict: doctor.OK, Subject: "criu", Text: "CRIU 4.2"},
		},
	}
	const want = `fixed: /etc/criu/runc.conf: changed
not fixed: remove x: no\x0apermission
fails    crun: one; two
         remedy: netfreeze install (--fix does it)
note     evil\x1b[2J: text
         remedy: wait
ok       criu: CRIU 4.2
`
	if got := v.text(false); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	coloured := v.text(true)
	if !strings.Contains(coloured, "\x1b[31;1mfails  \x1b[0m  crun") || !strings.Contains(coloured, "\x1b[32mok     \x1b[0m") {
		t.Errorf("colours: %q", coloured)
	}
}

// TestDoctorExitCode fails if a check does, and not for a warning.
func TestDoctorExitCode(t *testing.T) {
	root, _ := installRoot(t, "")
	out, _, err := runCommand(newDoctorCmd(), "--root", root, "-o", "json")
	if c, _ := code.Of(err); c != code.CheckFailed {
		t.Errorf("there is no CRIU: %v", err)
	}
	var v doctorView
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.OK || v.Findings[0].Remedy != "install CRIU 4.2 or newer" {
		t.Errorf("%v, %s", err, out)
	}
	for path, text := range map[string]string{
		"/usr/sbin/criu":           "",
		"/usr/sbin/runc":           "",
		"/etc/criu/runc.conf":      "action-script /opt/netfreeze-hook\nnetwork-lock skip\n",
		"/etc/criu/netfreeze.toml": "",
	} {
		if err := os.MkdirAll(root+path[:strings.LastIndex(path, "/")], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, _, err = runCommand(newDoctorCmd(), "--root", root)
	if err != nil || !strings.HasPrefix(out, "warning  runc: tcp-established is not set") {
		t.Errorf("%v, %s", err, out)
	}
}

// TestDoctorRefused says what does not go together.
func TestDoctorRefused(t *testing.T) {
	for _, args := range [][]string{{"--root", t.TempDir(), "1"}, {"--fix", "1"}, {"-o", "yaml"}, {"no-such-container"}, {"4194305"}} {
		if _, _, err := runCommand(newDoctorCmd(), args...); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
