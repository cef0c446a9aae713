// SPDX-License-Identifier: Apache-2.0

// Package proc identifies processes in a way that the reuse of pids cannot confuse
// (a pidfd together with the start time), walks a process tree as CRIU does, and
// reads the few facts from /proc on which the hooks base decisions.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// ErrGone says that a process does not exist any more. Its pid may belong to
// another process by now.
var ErrGone = code.New(code.TaskGone, "the process is gone")

// Ref is a process's identity in a form that can be stored: its pid, as seen from
// the caller's pid namespace, and its start time in clock ticks since boot (field
// 22 of /proc/PID/stat).
type Ref struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// String returns "PID@START", which also serves as the name of a transaction.
func (r Ref) String() string { return fmt.Sprintf("%d@%d", r.PID, r.Start) }

// ParseRef is the inverse of Ref.String.
func ParseRef(s string) (Ref, error) {
	pid, start, ok := strings.Cut(s, "@")
	if ok {
		p, err1 := strconv.Atoi(pid)
		t, err2 := strconv.ParseUint(start, 10, 64)
		if err1 == nil && err2 == nil && p > 0 {
			return Ref{PID: p, Start: t}, nil
		}
	}
	return Ref{}, code.New(code.TaskGone, fmt.Sprintf("%q is not PID@STARTTIME", s))
}

// Process is an open reference to a process: signals and look-ups through it can
// never reach another one.
type Process struct {
	Ref
	fd int
}

// Open opens the process that has this pid now. The error wraps ErrGone if there
// is none.
func Open(pid int) (*Process, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("pid %d: %w", pid, ErrGone)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
			err = ErrGone
		}
		return nil, fmt.Errorf("pid %d: %w", pid, err)
	}
	p := &Process{Ref: Ref{PID: pid}, fd: fd}
	st, err := ReadStat(pid)
	if err == nil && !p.exists() {
		err = fmt.Errorf("pid %d: %w", pid, ErrGone)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	p.Start = st.Start
	return p, nil
}

// Open opens exactly the process that r names. The error wraps ErrGone if it has
// ended, even if its pid belongs to another process now.
func (r Ref) Open() (*Process, error) {
	p, err := Open(r.PID)
	if err != nil {
		return nil, err
	}
	if p.Start != r.Start {
		p.Close()
		return nil, fmt.Errorf("pid %d was given to another process: %w", r.PID, ErrGone)
	}
	return p, nil
}

// Alive reports whether the process that r names has not ended. A zombie has.
func (r Ref) Alive() bool {
	st, err := ReadStat(r.PID)
	return err == nil && st.Start == r.Start && st.State != 'Z' && st.State != 'X'
}

// FD returns the pidfd, which Close closes.
func (p *Process) FD() int { return p.fd }

// Close closes the reference; it does not affect the process.
func (p *Process) Close() { _ = unix.Close(p.fd) }

// exists reports whether the pid still belongs to this process, even as a zombie.
func (p *Process) exists() bool {
	err := unix.PidfdSendSignal(p.fd, 0, nil, 0)
	return err == nil || errors.Is(err, unix.EPERM)
}

// Signal sends sig. It is no error if the process has ended already.
func (p *Process) Signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(p.fd, sig, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %v to pid %d: %w", sig, p.PID, err)
	}
	return nil
}

// Ended waits until the process has ended, at most for d, and reports whether it
// has.
func (p *Process) Ended(d time.Duration) bool {
	deadline := time.Now().Add(d)
	for {
		left := time.Until(deadline).Milliseconds()
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(max(left, 0)))
		if n > 0 {
			return true
		}
		if !errors.Is(err, unix.EINTR) || left <= 0 {
			return false
		}
	}
}

// Dup returns a duplicate of the process's file descriptor fd (pidfd_getfd(2)).
// Both share one open file, so a socket option that is set on the duplicate is set
// for the process too.
func (p *Process) Dup(fd int) (int, error) {
	d, err := unix.PidfdGetfd(p.fd, fd, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicate descriptor %d of pid %d: %w", fd, p.PID, err)
	}
	return d, nil
}

// Stat is the part of /proc/PID/stat that is needed here.
type Stat struct {
	Comm  string
	State byte // one of R S D T t Z X I
	PPID  int
	Flags uint64 // PF_… of linux/sched.h
	Start uint64 // clock ticks since boot
}

// ReadStat reads /proc/PID/stat. The error wraps ErrGone if there is no such process.
func ReadStat(pid int) (Stat, error) {
	data, err := readFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			err = ErrGone
		}
		return Stat{}, fmt.Errorf("pid %d: %w", pid, err)
	}
	return parseStat(data)
}

// parseStat takes apart the line in /proc/PID/stat. The command's name stands in
// parentheses and may itself contain spaces and parentheses, so it ends at the
// last closing one.
func parseStat(data []byte) (Stat, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return Stat{}, code.New(code.TaskGone, fmt.Sprintf("malformed stat line %q", data))
	}
	f := strings.Fields(string(data[end+1:]))
	const state, ppid, flags, start = 0, 1, 6, 19 // fields 3, 4, 9 and 22, counted from after the name
	if len(f) <= start || len(f[state]) != 1 || !isLetter(f[state][0]) {
		return Stat{}, code.New(code.TaskGone, fmt.Sprintf("malformed stat line %q", data))
	}
	st := Stat{Comm: string(data[open+1 : end]), State: f[state][0]}
	var err1, err2, err3 error
	st.PPID, err1 = strconv.Atoi(f[ppid])
	st.Start, err2 = strconv.ParseUint(f[start], 10, 64)
	st.Flags, err3 = strconv.ParseUint(f[flags], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return Stat{}, fmt.Errorf("malformed stat line %q: %w", data, err)
	}
	return st, nil
}

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

// Cmdline returns the arguments with which the process was started, or nil if they
// cannot be read.
func Cmdline(pid int) []string {
	data, err := readFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}

// Ending reports whether the process will not run another instruction of its
// program: it has ended, is a zombie, is exiting (PF_EXITING in linux/sched.h) or
// has a SIGKILL pending.
func (p *Process) Ending() bool {
	const exiting = 0x4
	st, err := ReadStat(p.PID)
	if err != nil || st.Start != p.Start || st.State == 'Z' || st.State == 'X' || st.Flags&exiting != 0 {
		return true
	}
	for _, pending := range status(p.PID, "SigPnd", "ShdPnd") {
		if set, err := strconv.ParseUint(pending, 16, 64); err == nil && set&(1<<(uint(unix.SIGKILL)-1)) != 0 {
			return true
		}
	}
	return false
}

// Traced reports whether the process is alive and traced by another one
// (ptrace(2)), as it is by CRIU during a dump.
func (r Ref) Traced() bool {
	if !r.Alive() {
		return false
	}
	tracer := status(r.PID, "TracerPid")
	return len(tracer) == 1 && tracer[0] != "0"
}

// IsInit reports whether the process is the first one of a pid namespace below that of
// /proc (NSpid in proc_pid_status(5)).
func IsInit(pid int) bool {
	for _, pids := range status(pid, "NSpid") {
		f := strings.Fields(pids)
		return len(f) > 1 && f[len(f)-1] == "1"
	}
	return false
}

// Pending reports whether the process has been sent this signal and has not taken it
// yet, because it is stopped or blocks it (SigPnd and ShdPnd in proc_pid_status(5)).
func (r Ref) Pending(sig unix.Signal) bool {
	if !r.Alive() {
		return false
	}
	for _, set := range status(r.PID, "SigPnd", "ShdPnd") {
		bits, err := strconv.ParseUint(set, 16, 64)
		if err == nil && bits&(1<<(sig-1)) != 0 {
			return true
		}
	}
	return false
}

// status returns the values of the named lines of /proc/PID/status.
func status(pid int, names ...string) (values []string) {
	data, err := readFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		if slices.Contains(names, name) {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}
