// SPDX-License-Identifier: Apache-2.0

package proc

import "strconv"

// Tracer returns the pid of the process that traces this one (ptrace(2)), 0 if none does.
//
// The kernel names the thread that traces (TracerPid, task_state in fs/proc/array.c), which
// is not its process' first one where a program with many threads does it.
func (r Ref) Tracer() int {
	thread := number(status(r.PID, "TracerPid"))
	if thread == 0 {
		return 0
	}
	if process := number(status(thread, "Tgid")); process != 0 {
		return process
	}
	return thread // it ended in between
}

// number returns the first of the values that status returns, which are the kernel's own
// text, as a number; 0 if there is none.
func number(values []string) int {
	if len(values) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(values[0])
	return n
}
