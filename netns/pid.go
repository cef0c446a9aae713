package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// OpenPID opens the network namespace of a process. A startTime other than 0
// (see [StartTime]) must be the process's own, so that a number that the kernel
// has given to another process meanwhile is noticed; the process is also held
// by a pidfd, so that it cannot be replaced while it is being looked at.
func OpenPID(pid int, startTime uint64) (*Namespace, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("open the network namespace of process %d: not a process id", pid)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(pidfd) }()

	if err := isSame(pid, startTime); err != nil {
		return nil, err
	}
	n, err := OpenPath(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	// Signal 0 through the pidfd reaches the process that was there at the
	// beginning or nobody.
	if err = unix.PidfdSendSignal(pidfd, 0, nil, 0); err == nil {
		err = isSame(pid, startTime)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("process %d ended while its network namespace was opened: %w", pid, err), n.Close())
	}
	return n, nil
}

// isSame reports an error unless the process started at startTime, where that
// is known.
func isSame(pid int, startTime uint64) error {
	if startTime == 0 {
		return nil
	}
	got, err := StartTime(pid)
	if err != nil {
		return err
	}
	if got != startTime {
		return fmt.Errorf("process %d started at tick %d, not %d: another process has this number now", pid, got, startTime)
	}
	return nil
}

// StartTime returns when a process started, in clock ticks since the system
// was booted. Together with the process id it names one process for good.
func StartTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the start time of process %d: %w", pid, err)
	}
	t, err := parseStartTime(stat)
	if err != nil {
		return 0, fmt.Errorf("read the start time of process %d: %w", pid, err)
	}
	return t, nil
}

// parseStartTime returns field 22 of a /proc/PID/stat line (proc_pid_stat(5)).
// Field 2, the command's name, stands in parentheses and may itself contain
// spaces and parentheses, so the fields are counted from the last one of these.
func parseStartTime(stat []byte) (uint64, error) {
	const fieldsAfterName = 22 - 2
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("no command name in /proc/PID/stat")
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < fieldsAfterName {
		return 0, fmt.Errorf("only %d fields after the command's name in /proc/PID/stat", len(fields))
	}
	t, err := strconv.ParseUint(string(fields[fieldsAfterName-1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("field 22 of /proc/PID/stat: %w", err)
	}
	return t, nil
}
