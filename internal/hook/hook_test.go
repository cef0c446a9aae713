// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// roleEnv is set in the environment of a test binary that is to be the action-script,
// executed under the name that is the variable's value.
const roleEnv = "HOOK_TEST_SCRIPT"

// programEnv names the program that such a test binary starts as its settler.
const programEnv = "HOOK_TEST_SETTLER"

func TestMain(m *testing.M) {
	if name := os.Getenv(roleEnv); name != "" {
		os.Args = []string{name}
		if program := os.Getenv(programEnv); program != "" {
			Program, startTime = program, 200*time.Millisecond
		}
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// run executes the script called name with this environment.
func run(t *testing.T, name string, env ...string) (said string, code int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append([]string{roleEnv + "=" + name}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestMisuse(t *testing.T) {
	for _, tc := range []struct {
		name, script, action, want string
		code                       int
	}{
		{"foreign action", "netfreeze-hook", "pre-resume", "", 0},
		{"another script's action", "pre-dump", "post-dump", "", 0},
		{"no action", "netfreeze-hook", "", "is not set", 1},
		{"unknown action", "netfreeze-hook", "dump", "no action of CRIU", 1},
		{"unknown name", "netfreeze", "pre-dump", "call it netfreeze-hook", 1},
	} {
		said, code := run(t, tc.script, "CRTOOLS_SCRIPT_ACTION="+tc.action)
		if code != tc.code || !strings.Contains(said, tc.want) || tc.want == "" && said != "" {
			t.Errorf("%s: exit code %d, %q", tc.name, code, said)
		}
		if strings.Count(said, "\n") > 1 {
			t.Errorf("%s: more than one line: %q", tc.name, said)
		}
	}
}

// TestStartHangs has a settler that neither ends nor says that it is ready: CRIU must
// not wait for it for ever.
func TestStartHangs(t *testing.T) {
	hangs := filepath.Join(t.TempDir(), "settler")
	if err := os.WriteFile(hangs, []byte("#!/bin/sh\nexec sleep 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	said, code := run(t, "netfreeze-hook", "CRTOOLS_SCRIPT_ACTION=pre-dump", programEnv+"="+hangs)
	if code != 1 || !strings.Contains(said, "has not answered") {
		t.Errorf("exit code %d, %q", code, said)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestParentIn(t *testing.T) {
	for stat, want := range map[string]int{
		"12 (sh) S 7 12 12 0 -1":         7,
		"12 (a) S 1 (b) R 42 12":         42,
		"12 (sh) S 0 12":                 0,
		"12 (sh) S":                      0,
		"12 (sh":                         0,
		"":                               0,
		"12 (sh) S -1 12":                0,
		"12 (sh) S 99999999999999999999": 0,
	} {
		if got := parentIn(stat); got != want {
			t.Errorf("%q: %d, want %d", stat, got, want)
		}
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	if got := parentIn(string(stat)); got != os.Getppid() {
		t.Errorf("our own parent: %d, want %d", got, os.Getppid())
	}
}

func TestIdentify(t *testing.T) {
	id, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	pid, start, ok := strings.Cut(id, "@")
	if !ok || pid != strconv.Itoa(os.Getpid()) {
		t.Errorf("got %q", id)
	}
	if _, err := strconv.ParseUint(start, 10, 64); err != nil {
		t.Error(err)
	}
	if id, err := identify(1 << 30); err == nil {
		t.Errorf("a process that does not exist is called %q", id)
	}
}
