// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// roleEnv makes this test binary the settler of the CRIU process that it names.
const roleEnv = "SETTLER_TEST_OF"

// TestMain gives the tests a /run of their own.
func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == hangs {
		hang()
	}
	if id := os.Getenv(roleEnv); id != "" {
		if err := Run(id, os.NewFile(action.ReadyFD, "ready")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	nstest.Main(m)
}

// startCRIU starts a process that is taken for CRIU, and is ended with the test.
func startCRIU(t *testing.T) *exec.Cmd {
	t.Helper()
	criu := exec.Command("sleep", "600")
	if err := criu.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = criu.Process.Kill(), criu.Wait() })
	return criu
}

// startSettler starts a settler, a process of its own, and waits until it is ready.
func startSettler(t *testing.T, id string) *exec.Cmd {
	t.Helper()
	ready, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	settler := exec.Command("/proc/self/exe")
	settler.Env = append(os.Environ(), roleEnv+"="+id)
	settler.Stderr = t.Output()
	settler.ExtraFiles = []*os.File{write} // becomes action.ReadyFD
	err = settler.Start()
	_ = write.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = settler.Process.Kill() })
	if said, err := io.ReadAll(ready); err != nil || string(said) != "ok" {
		t.Fatalf("the settler says %q (%v)", said, err)
	}
	return settler
}

// TestSignals promises that a settler outlives every signal that a service manager, a
// terminal or a shell may send to all that surrounds it, and ends when CRIU has ended.
func TestSignals(t *testing.T) {
	criu := startCRIU(t)
	p, err := proc.Open(criu.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	settler := startSettler(t, p.String())
	ended := make(chan error, 1)
	go func() { ended <- settler.Wait() }()

	// SIGKILL and SIGSTOP cannot be ignored, the others say that a program is broken,
	// or are reserved for C libraries.
	except := []unix.Signal{
		unix.SIGKILL, unix.SIGSTOP, unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGSYS, unix.SIGSTKFLT,
		32, 33, 34,
	}
	for sig := unix.Signal(1); sig <= 64; sig++ {
		if slices.Contains(except, sig) {
			continue
		}
		if err := settler.Process.Signal(sig); err != nil {
			t.Fatalf("signal %d (%v) cannot be sent: %v", int(sig), sig, err)
		}
		select {
		case err := <-ended:
			t.Fatalf("signal %d (%v) has ended the settler: %v", int(sig), sig, err)
		case <-time.After(5 * time.Millisecond):
		}
		if st, err := proc.ReadStat(settler.Process.Pid); err != nil || st.State == 'T' || st.State == 'Z' {
			t.Fatalf("after signal %d (%v) the settler's state is %c (%v)", int(sig), sig, st.State, err)
		}
	}

	if err := criu.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the settler fails: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the settler does not end with CRIU")
	}
}

// TestExecutedPrograms promises that the settler still learns the exit code of a program
// that it executes.
func TestExecutedPrograms(t *testing.T) {
	ignoreSignals()
	if err := exec.Command("true").Run(); err != nil {
		t.Error(err)
	}
	if err := exec.Command("false").Run(); err == nil || err.Error() != "exit status 1" {
		t.Errorf("got %v", err)
	}
}
