// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWitness writes down that a program is stopped, and what it waits in, once for each
// of the first few promises that break.
func TestWitness(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	stop(cmd.Process.Pid)
	r := &run{dir: t.TempDir(), begun: time.Now()}
	r.pods = []*pod{{trees: []*tree{{id: "sleeper", pid: cmd.Process.Pid}}}}
	for range maxEvidence + 2 {
		r.breaks("a promise", "it sleeps")
	}
	files, err := filepath.Glob(filepath.Join(r.dir, "evidence-*-sleeper.log"))
	if err != nil || len(files) != maxEvidence {
		t.Fatalf("%v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"a promise: it sleeps", "sleep 60", "State:\tT (stopped)", "TracerPid:\t0", "SigBlk:", "ran, waited to run", "0 of its sockets are in repair mode",
		"again", "some avg10", "[stack]",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

// TestMappingAt names what a thread's code is in.
func TestMappingAt(t *testing.T) {
	const maps = "00400000-00518000 r-xp 00000000 00:44 1106   /traffic\n7f76d17b6000-7f76d17c0000 rwxp 00000000 00:01 9   /memfd:CRIUMFD (deleted)\n"
	for call, want := range map[string]string{
		"202 0x6852b8 0x80 0x0 0x0 0x0 0x0 0x7ffdcc8979d8 0x487d83": "/traffic",
		"7 0x1 0x2 0x3 0x4 0x5 0x6 0x7f76d17b7000 0x7f76d17b7001":   "/memfd:CRIUMFD (deleted)",
		"7 0x1 0x2 0x3 0x4 0x5 0x6 0x7f76d17b7000 0x518000":         "no mapping",
		"running": "a mapping that is not known",
		"":        "no mapping",
	} {
		if got := mappingAt(maps, call); !strings.HasSuffix(got, want) {
			t.Errorf("%q: %q", call, got)
		}
	}
}
