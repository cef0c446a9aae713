package hook

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// roleEnv makes this test binary the action-script, under its first argument's
// name, as CRIU would execute it.
const roleEnv = "RELAY_TEST_SCRIPT"

func TestMain(m *testing.M) {
	if name := os.Getenv(roleEnv); name != "" {
		os.Args = []string{name}
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

// TestScripts makes sure that the four scripts together do what the one does.
func TestScripts(t *testing.T) {
	for _, a := range []string{action.PreDump, action.NetworkLock, action.PostDump, action.PreRestore, action.PostSetupNS, action.NetworkUnlock, action.PostResume} {
		if !action.Known(a) {
			t.Errorf("CRIU has no action %q", a)
		}
		if !action.Does("netfreeze-hook", a) {
			t.Errorf("netfreeze-hook does not do %s", a)
		}
		if !slices.ContainsFunc([]string{"pre-dump", "post-dump", "pre-restore", "post-resume"}, func(name string) bool { return action.Does(name, a) }) {
			t.Errorf("none of the four scripts does %s", a)
		}
	}
	for _, a := range []string{"post-restore", "pre-resume", ""} {
		if action.Does("netfreeze-hook", a) || action.Does("post-dump", a) {
			t.Errorf("a script does %q", a)
		}
	}
}

func TestIdentify(t *testing.T) {
	id, problem := identify(os.Getpid())
	pid, start, ok := strings.Cut(id, "@")
	if problem != "" || !ok || pid != strconv.Itoa(os.Getpid()) {
		t.Errorf("got %q, %q", id, problem)
	}
	if _, err := strconv.ParseUint(start, 10, 64); err != nil {
		t.Error(err)
	}
	if _, problem := identify(1 << 30); problem == "" {
		t.Error("a process that is not there has a name")
	}
}
