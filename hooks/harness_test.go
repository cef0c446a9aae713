// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules/fake"
)

// roleEnv makes this test binary another process: one that only waits, or one that
// has a TCP connection with itself and waits.
const roleEnv = "HOOKS_TEST_ROLE"

// TestMain gives the tests a /run of their own.
func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "wait":
		time.Sleep(time.Hour)
	case "criu":
		standIn()
	case "connect":
		connect()
	}
	nstest.Main(m)
}

func init() {
	if os.Getenv(roleEnv) == "criu" {
		runtime.LockOSThread() // what /proc/PID/syscall shows is the first thread's
	}
}

// standIn stands for CRIU: it waits to be told how to end, or to receive.
func standIn() {
	var word string
	var code int
	for {
		n, err := fmt.Scanln(&word, &code)
		switch {
		case n == 2 && word == "exit":
			os.Exit(code)
		case word == "receive":
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
			if err == nil {
				_, _, err = unix.Recvfrom(fds[0], make([]byte, 1), 0)
			}
			panic(err)
		case err != nil:
			time.Sleep(time.Hour)
		}
	}
}

// connect makes a connection on loopback, says on stdout that it is there, and one
// more for each line of stdin.
func connect() {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	line := make([]byte, 1)
	for {
		if _, err := net.Dial("tcp4", l.Addr().String()); err != nil {
			panic(err)
		}
		if _, err := l.Accept(); err != nil {
			panic(err)
		}
		fmt.Println("connected")
		if _, err := os.Stdin.Read(line); err != nil {
			time.Sleep(time.Hour)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// child starts this test binary in a role, under these arguments.
func child(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{"criu"}, args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "GODEBUG=multipathtcp=0")
	t.Cleanup(func() {
		if cmd.Process != nil {
			_ = cmd.Process.Signal(unix.SIGCONT)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// stage is what a transaction needs but for a CRIU: a process that stands for
// CRIU, a tree of one process, images, and a packet filter without effect.
type stage struct {
	*testing.T
	filter *fake.Filter
	cfg    *config.Config
	log    *bytes.Buffer

	criu   *exec.Cmd
	tell   io.Writer // tells it what to do
	tree   *exec.Cmd
	ns     *netns.Namespace // the tree's, or the target of the restore
	work   string           // CRIU's working directory
	images string
	env    *Env
	tx     Transaction
}

// newStage returns a stage for a dump of a tree in a namespace of its own, or in
// CRIU's if shared. The arguments are CRIU's.
func newStage(t *testing.T, shared bool, args ...string) *stage {
	t.Helper()
	must(t, os.RemoveAll(record.Dir))
	must(t, record.MakeDir())
	s := &stage{T: t, filter: fake.New(), cfg: config.Default(), log: &bytes.Buffer{}, work: t.TempDir(), images: t.TempDir(), ns: nstest.New(t)}
	s.cfg.AnnounceCount = 0
	s.useImages("external")
	s.tree = child(t, "wait")
	if shared {
		must(t, s.tree.Start())
	} else {
		must(t, s.ns.Do(s.tree.Start))
	}
	dir, err := os.Open(s.images)
	must(t, err)
	defer dir.Close()
	s.criu = child(t, "criu", args...)
	s.criu.Dir, s.criu.ExtraFiles = s.work, []*os.File{dir}
	s.tell, err = s.criu.StdinPipe()
	must(t, err)
	must(t, s.criu.Start())
	// Between the exec that Start waits for and its end there are no arguments yet.
	for deadline := time.Now().Add(10 * time.Second); len(proc.Cmdline(s.criu.Process.Pid)) != len(args)+1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the stand-in for CRIU has no arguments")
		}
	}
	criu, err := proc.Open(s.criu.Process.Pid)
	must(t, err)
	t.Cleanup(criu.Close)
	log := logrus.New()
	log.SetOutput(s.log)
	log.SetLevel(logrus.DebugLevel)
	s.env = &Env{
		Pause:  func(d time.Duration) bool { time.Sleep(d); return true },
		Keeper: freeze.New(s.filter), CRIU: criu, Log: log,
		Config: func() (*config.Config, error) { return s.cfg, nil },
	}
	t.Cleanup(func() {
		if s.tx != nil {
			s.tx.Close()
		}
		if t.Failed() {
			t.Logf("log:\n%s", s.log)
		}
	})
	return s
}

// another returns the stage with another CRIU, for one more transaction with the same
// tree and the same packet filter.
func (s *stage) another(args ...string) *stage {
	s.Helper()
	dir, err := os.Open(s.images)
	must(s.T, err)
	defer dir.Close()
	again := *s
	again.tx = nil
	again.criu = child(s.T, "criu", args...)
	again.criu.Dir, again.criu.ExtraFiles = s.work, []*os.File{dir}
	again.tell, err = again.criu.StdinPipe()
	must(s.T, err)
	must(s.T, again.criu.Start())
	criu, err := proc.Open(again.criu.Process.Pid)
	must(s.T, err)
	s.Cleanup(criu.Close)
	env := *s.env
	env.CRIU, again.env = criu, &env
	s.Cleanup(func() {
		if again.tx != nil {
			again.tx.Close()
		}
	})
	return &again
}

// useImages puts sample images into the image directory.
func (s *stage) useImages(name string) {
	s.Helper()
	s.removeImages()
	must(s.T, os.CopyFS(s.images, os.DirFS(filepath.Join("../testdata/images", name))))
}

// removeImages leaves the image directory empty. It stays, since CRIU has it open.
func (s *stage) removeImages() {
	s.Helper()
	old, err := os.ReadDir(s.images)
	must(s.T, err)
	for _, e := range old {
		must(s.T, os.Remove(filepath.Join(s.images, e.Name())))
	}
}

// request is an action as CRIU would ask for it.
func (s *stage) request(name string) action.Request {
	script := action.Hook
	if name, by, ok := strings.Cut(name, " by "); ok {
		return action.Request{Script: by, Action: name}
	}
	r := action.Request{Script: script, Action: name, ImageDir: fmt.Sprintf("/proc/%d/fd/3", s.criu.Process.Pid)}
	if name != action.PreRestore {
		r.InitPID = fmt.Sprint(s.tree.Process.Pid)
	}
	return r
}

// do does one step of a story: an action of CRIU, or what happens beside it.
func (s *stage) do(step string) error {
	s.Helper()
	word, rest, _ := strings.Cut(step, " ")
	switch word {
	case "write-stats": // somebody writes what CRIU writes last
		return os.WriteFile(filepath.Join(s.work, statsName), []byte("x"), 0o600)
	case "success": // CRIU writes it, and ends
		must(s.T, s.do("write-stats"))
		return s.do("exit 0")
	case "exit": // CRIU ends, as it says itself
		_, err := fmt.Fprintf(s.tell, "exit %s\n", rest)
		must(s.T, err)
		if !s.env.CRIU.Ended(10 * time.Second) {
			s.Fatal("the stand-in for CRIU does not end")
		}
		return nil
	case "receive": // CRIU waits for another request
		_, err := fmt.Fprintln(s.tell, "receive 0")
		must(s.T, err)
		for deadline := time.Now().Add(10 * time.Second); !s.env.CRIU.Receives(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				s.Fatal("the stand-in for CRIU does not receive")
			}
		}
		return nil
	case "reap": // CRIU's parent waits for it
		_ = s.criu.Wait()
		return nil
	case "fail": // the packet filter does not do this any more
		s.filter.Fail(rest, fmt.Errorf("%s does not work", rest))
		return nil
	case "mend":
		s.filter.Fail(rest, nil)
		return nil
	case "once": // it fails once
		s.filter.FailTimes(rest, fmt.Errorf("%s did not work", rest), 1)
		return nil
	case "die": // CRIU ends
		_ = s.criu.Process.Kill()
		_ = s.criu.Wait()
		return nil
	case "end-tasks":
		_ = s.tree.Process.Kill()
		_ = s.tree.Wait()
		return nil
	case "lose-settler": // it is killed; a new one comes with the next action
		s.tx.Close()
		s.tx = nil
		return nil
	case "settle":
		return s.tx.Settle()
	case "concluded":
		if !s.tx.Concluded() {
			return fmt.Errorf("not concluded")
		}
		return nil
	}
	req := s.request(step)
	switch {
	case s.tx != nil:
		return s.tx.Do(req)
	case word == action.PreDump || word == action.PreRestore:
		var err error
		s.tx, err = Begin(s.env, req)
		return err
	}
	var err error
	if s.tx, err = Reopen(s.env); err != nil {
		return err
	}
	return s.tx.Do(req)
}

// story does the steps and returns a line for each: its error, the transaction's
// state, what the record says, the tree's process state, and what is frozen.
func (s *stage) story(steps ...string) string {
	s.Helper()
	var b strings.Builder
	for _, step := range steps {
		err := s.do(step)
		fmt.Fprintf(&b, "%s: %s", step, s.describe())
		if err != nil {
			fmt.Fprintf(&b, "; error: %v", err)
		}
		b.WriteByte('\n')
	}
	return s.anonymous(b.String())
}

func (s *stage) describe() string {
	words := []string{"no transaction"}
	switch tx := s.tx.(type) {
	case *Dump:
		words[0] = tx.now.String()
	case *Restore:
		words[0] = tx.now.String()
	}
	all, err := record.All()
	must(s.T, err)
	for _, r := range all {
		words = append(words, "record "+string(r.Phase))
		for deadline := time.Now().Add(5 * time.Second); r.Stopped && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if st, err := proc.ReadStat(s.tree.Process.Pid); err != nil || st.State == 'T' {
				break // a task that runs stops at its next interrupt
			}
		}
	}
	if st, err := proc.ReadStat(s.tree.Process.Pid); err != nil {
		words = append(words, "no tasks")
	} else if st.State == 'T' {
		words = append(words, "stopped")
	}
	if in := strings.Join(strings.Split(strings.TrimSpace(s.filter.String()), "\n"), " + "); in != "" {
		words = append(words, in)
	}
	return strings.Join(words, ", ")
}

// frozenFor finds how much longer a freeze lasts.
var frozenFor = regexp.MustCompile(`frozen [0-9hms.]+`)

// anonymous replaces what differs from run to run.
func (s *stage) anonymous(text string) string {
	text = frozenFor.ReplaceAllStringFunc(text, func(m string) string {
		d, err := time.ParseDuration(strings.TrimPrefix(m, "frozen "))
		must(s.T, err)
		return "frozen " + (d + 5*time.Second).Truncate(10*time.Second).String()
	})
	return strings.NewReplacer(
		fmt.Sprintf("pid %d", s.tree.Process.Pid), "pid TREE", fmt.Sprintf("thaw %d", s.tree.Process.Pid), "thaw TREE",
		s.ns.String(), "NS", s.ns.ID().String(), "NS",
		fmt.Sprintf("/proc/%d/ns/net", s.tree.Process.Pid), "TREE/ns/net",
		ownerOf(s.env.CRIU.String()), "OWNER",
		s.images, "IMAGES",
	).Replace(text)
}

// want compares a story with how it should go: lines, without their indentation.
func want(t *testing.T, got, text string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	gotLines := strings.Split(strings.TrimSpace(got), "\n")
	for i := range max(len(lines), len(gotLines)) {
		var g, w string
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if i < len(lines) {
			w = lines[i]
		}
		if g != w {
			t.Errorf("line %d\n got %s\nwant %s", i+1, g, w)
		}
	}
}
