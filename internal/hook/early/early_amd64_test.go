package early

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// buildHook links the action-script as the Makefile does, with symbols.
func buildHook(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netfreeze-hook")
	const module = "github.com/criu-netfreeze/criu-netfreeze"
	cmd := exec.Command("go", "build", "-ldflags", "-E "+module+"/internal/hook/early.entry", "-o", path, module+"/cmd/netfreeze-hook")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// script executes a program under a script's name.
func script(t *testing.T, path, name string, env ...string) (said string, code int) {
	t.Helper()
	cmd := exec.Command(path)
	cmd.Args, cmd.Env = []string{name}, env
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestEarly makes sure that what runs before the runtime calls nothing that
// needs it: each function of ours that can be reached from the entry, and a few
// others that are known to need nothing.
func TestEarly(t *testing.T) {
	hook := buildHook(t)
	harmless := regexp.MustCompile(`^(?:syscall\.RawSyscall6|internal/runtime/syscall(/linux)?\.Syscall6|runtime/internal/syscall\.Syscall6|` +
		`runtime\.memequal|memeqbody|runtime\.cmpstring|cmpbody|` + // assembly
		`runtime\.panic.*|runtime\.goPanic.*|_rt0_amd64_linux)(\.abi0)?$`) // the first if we have a bug, the last is next
	call := regexp.MustCompile(`\s(?:CALL|JMP) ([^\s(]+)\(SB\)`)
	seen := map[string]bool{}
	for todo := []string{"github.com/criu-netfreeze/criu-netfreeze/internal/hook/early.entry.abi0"}; len(todo) > 0; todo = todo[1:] {
		name := todo[0]
		if seen[name] {
			continue
		}
		seen[name] = true
		out, err := exec.Command("go", "tool", "objdump", "-s", "^"+regexp.QuoteMeta(name)+"$", hook).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "TEXT") {
			t.Fatalf("look at %s: %v: %s", name, err, out)
		}
		for _, m := range call.FindAllStringSubmatch(string(out), -1) {
			switch to := m[1]; {
			case harmless.MatchString(to):
			case strings.HasPrefix(to, "github.com/criu-netfreeze/criu-netfreeze/internal/"):
				todo = append(todo, to)
			default:
				t.Errorf("%s calls %s", name, to)
			}
		}
	}
	if len(seen) < 4 {
		t.Errorf("only %v was found", seen)
	}
}

// TestEarlySame compares with what the runtime's way does.
func TestEarlySame(t *testing.T) {
	hook := buildHook(t)
	for _, name := range []string{"netfreeze-hook", "/usr/libexec/post-dump", "pre-restore", "other"} {
		for _, action := range []string{"", "pre-resume", "post-dump", "dump", "setup-namespaces", "network-lock"} {
			env := []string{"A=b", "EMPTY=", "CRTOOLS_SCRIPT_ACTION=" + action, "CRTOOLS_SCRIPT_ACTIO=x"}
			if action.Does(action.Base(name), action) {
				continue // TestEarlyRelay
			}
			said, code := script(t, hook, name, env...)
			wantSaid, wantCode := run(t, name, env...)
			if said != wantSaid || code != wantCode {
				t.Errorf("%s, %q: exit code %d, %q; want %d, %q", name, action, code, said, wantCode, wantSaid)
			}
		}
	}
}

// TestEarlyRelay passes actions on to a settler that answers in different ways.
func TestEarlyRelay(t *testing.T) {
	hook := buildHook(t)
	id, problem := identify(os.Getpid())
	if problem != "" {
		t.Fatal(problem)
	}
	if err := os.MkdirAll(action.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(action.Dir, id+".sock"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	long := strings.Repeat("x", 5000) + "\n"
	for _, tc := range []struct {
		name    string
		answers []string
		said    string
		code    int
	}{
		{"done", []string{"E0"}, "", 0},
		{"done, with lines", []string{"Lone\n", "L" + long, "Ltwo\n", "E0"}, "one\n" + long + "two\n", 0},
		{"refused", []string{"Lwhy\n", "E1"}, "why\n", 1},
		{"nonsense", []string{"E"}, "", 1},
		{"died", []string{"Lone\n"}, "one\nnetfreeze: error: netfreeze-hook: post-dump: the settler ended without an answer (was it killed?)\n", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked := make(chan string, 1)
			go func() {
				_ = l.SetDeadline(time.Now().Add(10 * time.Second))
				c, err := l.Accept()
				if err != nil {
					asked <- err.Error()
					return
				}
				defer c.Close() //nolint:errcheck // that is the point
				buf := make([]byte, action.MaxMessage)
				n, _ := c.Read(buf)
				asked <- string(buf[:n])
				for _, a := range tc.answers {
					_, _ = c.Write([]byte(a))
				}
			}()
			said, code := script(t, hook, "/x/netfreeze-hook", "CRTOOLS_SCRIPT_ACTION=post-dump", "CRTOOLS_INIT_PID=77", "CRTOOLS_IMAGE_DIR=/proc/5/fd/6")
			if said != tc.said || code != tc.code {
				t.Errorf("exit code %d, %q; want %d, %q", code, said, tc.code, tc.said)
			}
			if got, want := <-asked, "1\x00netfreeze-hook\x00post-dump\x00/proc/5/fd/6\x0077"; got != want {
				t.Errorf("the settler got %q, want %q", got, want)
			}
		})
	}
}

// FuzzStartTime compares with the runtime's way to read /proc/PID/stat.
func FuzzStartTime(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	f.Add("7 (a) b) (c) S 1 2 3")
	f.Add("")
	f.Fuzz(func(t *testing.T, stat string) {
		from, to := action.StartTime([]byte(stat))
		if from < 0 || to < from || to > len(stat) {
			t.Fatalf("%d to %d of %d", from, to, len(stat))
		}
		fields := strings.Split(stat[strings.LastIndexByte(stat, ')')+1:], " ")
		if len(fields) > 20 && stat[from:to] != leadingDigits(fields[20]) {
			t.Errorf("got %q, want %q", stat[from:to], fields[20])
		}
	})
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}
