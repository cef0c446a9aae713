// SPDX-License-Identifier: Apache-2.0

package proc

import "strconv"

// Tracer returns the pid of the process that traces this one (ptrace(2)), 0 if none does.
func (r Ref) Tracer() int {
	for _, value := range status(r.PID, "TracerPid") {
		pid, _ := strconv.Atoi(value) // the kernel's own text
		return pid
	}
	return 0
}
