// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// realDir is where the programs are that a wrapper stands in for.
const realDir = "/usr/local/libexec/criu-netfreeze/real"

// wrap has a program of ours run under strace, which makes system calls fail. The
// program itself stays the child of whoever has executed it (strace -D).
func (r *run) wrap(program, calls, expr string) error {
	path := map[string]string{"settler": netfreeze, "hook": hookPath}[program]
	kept := filepath.Join(realDir, filepath.Base(path))
	if err := os.MkdirAll(realDir, 0o755); err != nil {
		return err
	}
	if err := os.Rename(path, kept); err != nil {
		return err
	}
	strace := fmt.Sprintf("exec strace -D -qq -o %s/%s.strace.$$ -e trace=%s -e %s", r.dir, program, calls, expr)
	text := "#!/bin/sh\n"
	if program == "settler" {
		// The commands of the suite are not to be disturbed, and a settler has
		// threads.
		text += fmt.Sprintf("[ \"$1\" = settle ] || exec %s \"$@\"\n%s -f %s \"$@\"\n", kept, strace, kept)
	} else {
		text += fmt.Sprintf("[ -n \"$CRTOOLS_SCRIPT_ACTION\" ] || exit 0\n%s %s \"$@\"\n", strace, kept)
	}
	return os.WriteFile(path, []byte(text), 0o755)
}

// unwrap puts the programs back and ends strace, whose tracees go on undisturbed.
func (r *run) unwrap() {
	for _, path := range []string{netfreeze, hookPath} {
		if kept := filepath.Join(realDir, filepath.Base(path)); exists(kept) {
			if err := os.Rename(kept, path); err != nil {
				r.logf("%v", err)
			}
		}
	}
	for _, p := range processes() {
		if filepath.Base(p.exe) == "strace" {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// injected reports whether strace has made a call fail.
func (r *run) injected() bool {
	logs, _ := filepath.Glob(filepath.Join(r.dir, "*.strace*"))
	for _, l := range logs {
		text, _ := os.ReadFile(l)
		if bytes.Contains(text, []byte("(INJECTED)")) || bytes.Contains(text, []byte("(DELAYED)")) {
			return true
		}
	}
	return false
}

// stop stops a process that has just been made, before it gets far.
func stop(pid int) {
	_ = unix.Kill(pid, unix.SIGSTOP)
	for range 100 {
		if s, _ := procState(pid); strings.ContainsRune("TtZ", rune(s)) || s == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
