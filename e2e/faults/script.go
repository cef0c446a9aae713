// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The names under which CRIU executes the program in testdata/step.c, before and
// after our own action-script.
const (
	scriptBefore = "faults-before"
	scriptAfter  = "faults-after"
)

// callerWord has this program call CRIU or a runtime, as a parent that can be killed.
const callerWord = "caller"

// inheritsWord is the variable that tells the caller to pass descriptor 3 on: the
// network namespace that CRIU is to restore into.
const inheritsWord = "FAULTS_INHERITS"

// scriptSocket is where the scripts report to the world, which has a fault strike
// before it answers with the exit code.
const scriptSocket = "/run/faults.sock"

// caller runs a command and exits as it does, 128 and the number of the signal if it
// was killed, like a shell.
func caller(argv []string) int {
	signal.Ignore(syscall.SIGHUP)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if os.Getenv(inheritsWord) != "" {
		cmd.ExtraFiles = []*os.File{os.NewFile(3, "inherited")}
	}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

// step is a moment in CRIU's work at which a script reports.
type step struct {
	when   string // before or after our script
	action string
	script int // pid of the script that waits for the answer
	criu   int // pid of the CRIU that executed it
	hook   int // pid of our own action-script, while it runs
}

func (s step) String() string { return s.when + ":" + s.action }

// steps takes the reports of the scripts.
type steps struct {
	listener *net.UnixListener
	mu       sync.Mutex
	handle   func(step) (exit int)
}

func newSteps() (*steps, error) {
	_ = os.Remove(scriptSocket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: scriptSocket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	s := &steps{listener: l}
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s, nil
}

// handler sets what is called at each step, nil for nothing.
func (s *steps) handler(handle func(step) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handle = handle
}

func (s *steps) serve(c *net.UnixConn) {
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	var at step
	if _, err := fmt.Sscan(line, &at.when, &at.action); err != nil {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			at.script = int(cred.Pid)
		}
	})
	at.criu = parentOf(at.script)
	s.mu.Lock()
	handle := s.handle
	s.mu.Unlock()
	exit := 0
	if handle != nil {
		exit = handle(at)
	}
	_, _ = fmt.Fprintf(c, "%d\n", exit)
}
