// SPDX-License-Identifier: Apache-2.0

package proc

import "strconv"

// Tracer returns the pid of the process that traces this one (ptrace(2)), 0 if none does.
//
// The kernel names the thread that traces (TracerPid, task_state in fs/proc/array.c), which
// is not its process' first one where a program with many threads does it.
func (r Ref) Tracer() int {
	for _, thread := range status(r.PID, "TracerPid") {
		tid, _ := strconv.Atoi(thread) // the kernel's own text
		if tid == 0 {
			return 0
		}
		for _, process := range status(tid, "Tgid") {
			pid, _ := strconv.Atoi(process)
			return pid
		}
		return tid // it ended in between
	}
	return 0
}
