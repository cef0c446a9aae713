// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"

	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// OpenPID opens the network namespace of a process. A startTime other than 0 (in
// clock ticks since boot, as in proc.Ref) must be the process's, so that it is
// noticed if the pid belongs to another process by now. The error wraps
// proc.ErrGone if the process has ended before its namespace was open.
func OpenPID(pid int, startTime uint64) (*Namespace, error) {
	p, err := proc.Open(pid)
	if err == nil && startTime != 0 && p.Start != startTime {
		p.Close()
		err = fmt.Errorf("pid %d was given to another process: %w", pid, proc.ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of a process: %w", err)
	}
	defer p.Close()
	return OpenProcess(p)
}

// OpenProcess opens the network namespace of a process that is open already. The
// error wraps proc.ErrGone if the process has ended before its namespace was open.
func OpenProcess(p *proc.Process) (*Namespace, error) {
	n, err := OpenPath(fmt.Sprintf("/proc/%d/ns/net", p.PID))
	if !p.Alive() { // so the path may have been another process's
		err = errors.Join(err, fmt.Errorf("open the network namespace of process %d: %w", p.PID, proc.ErrGone))
	}
	if err != nil {
		if n != nil {
			_ = n.Close()
		}
		return nil, err
	}
	return n, nil
}
