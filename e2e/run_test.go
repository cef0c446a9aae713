// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/criu-netfreeze/criu-netfreeze/e2e/internal/standstill"
)

// patience is the time limit for whatever should only take a moment.
const patience = 15 * time.Second

// poll calls wrong until it returns nil, and fails the test if that does not
// happen in time. The error says what is still wrong. Where a processor of the machine
// stands still meanwhile the time is longer.
func poll(t *testing.T, limit time.Duration, what string, wrong func() error) {
	t.Helper()
	begun := time.Now()
	for {
		err := wrong()
		if err == nil {
			return
		}
		if stood := standstill.Since(begun); time.Since(begun) > limit+2*stood {
			t.Fatalf("%s: not within %s (a processor stood still for %s): %v", what, limit, stood, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// command is a program to run, in a network namespace if one is named.
type command struct {
	*exec.Cmd
	netns string
}

func newCommand(ctx context.Context, netns string, argv ...string) *command {
	return &command{exec.CommandContext(ctx, argv[0], argv[1:]...), netns}
}

// start starts the program in its network namespace, and changes nothing else:
// "ip netns exec" also changes the mounts, and CRIU could not dump the program
// then.
func (c *command) start() error {
	if c.netns == "" {
		return c.Start()
	}
	return within(c.netns, c.Start)
}

// within calls a function on a thread that has entered a network namespace.
func within(name string, do func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine that is locked to it,
		// so that nothing else ever runs in the other namespace.
		runtime.LockOSThread()
		if syscall.Gettid() == os.Getpid() {
			// Not on the main thread, which never ends: it would stay in the
			// namespace, and keep it alive.
			done <- within(name, do)
			runtime.UnlockOSThread()
			return
		}
		done <- enter(name, do)
	}()
	return <-done
}

// enter moves the calling thread to a network namespace and calls a function.
func enter(name string, do func() error) error {
	handle, err := netns.GetFromPath(netnsPath(name))
	if err != nil {
		return fmt.Errorf("open netns %s: %w", name, err)
	}
	defer handle.Close()
	if err := netns.Set(handle); err != nil {
		return fmt.Errorf("enter netns %s: %w", name, err)
	}
	return do()
}

// runIn runs a program to its end in a network namespace ("" for the lab's own)
// and returns its output, standard error included.
func runIn(netns, stdin string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := newCommand(ctx, netns, argv...)
	var output bytes.Buffer
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.start()
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(output.String()))
	}
	return output.String(), err
}

// mustRun is like runIn, but ends the test if the program fails.
func mustRun(t *testing.T, netns, stdin string, argv ...string) string {
	t.Helper()
	out, err := runIn(netns, stdin, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// alive reports whether a process exists and is not a zombie.
func alive(pid int) bool {
	state, err := processState(pid)
	return err == nil && state != 'Z' && state != 'X'
}

// end kills a process, if it is still there, and waits until it is gone.
func end(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Errorf("kill %d: %v", pid, err)
	}
	// Until it is reaped: a zombie still occupies the pid that a restore needs.
	poll(t, patience, fmt.Sprintf("end of process %d", pid), func() error {
		if state, err := processState(pid); err == nil {
			return fmt.Errorf("in state %c", state)
		}
		return nil
	})
}

// dialOnce connects to an address and hangs up.
func dialOnce(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}
