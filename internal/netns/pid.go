package netns

import (
	"errors"
	"fmt"

	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// OpenPID opens the network namespace of a process. A startTime other than 0
// (proc.Ref has it, in clock ticks since boot) must be the process's own, so
// that a number that the kernel has given to another process meanwhile is
// noticed. The process is held by a pidfd while it is being looked at, and
// must still be there afterwards. The error wraps proc.ErrGone if it is not.
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

	n, err := OpenPath(fmt.Sprintf("/proc/%d/ns/net", pid))
	if !p.Alive() {
		err = errors.Join(err, fmt.Errorf("open the network namespace of process %d: %w", pid, proc.ErrGone))
	}
	if err != nil {
		if n != nil {
			_ = n.Close()
		}
		return nil, err
	}
	return n, nil
}
