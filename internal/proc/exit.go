// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ExitStatus returns how the process ended, as wait(2) gives it to the parent, and
// whether that can be told. It can while the process is a zombie (exit_code in
// proc_pid_stat(5)), and since Linux 6.15 after its parent has waited for it, too
// (PIDFD_INFO_EXIT in linux/pidfd.h). A process that runs has no status.
func (p *Process) ExitStatus() (status unix.WaitStatus, known bool) {
	if status, known = p.zombieStatus(); known {
		return status, true
	}
	return p.infoStatus() // the parent may have waited for it meanwhile
}

// zombieStatus reads the status from /proc while the process is a zombie.
func (p *Process) zombieStatus() (unix.WaitStatus, bool) {
	data, err := readFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return 0, false
	}
	st, err := parseStat(data)
	if err != nil || st.State != 'Z' || !p.exists() {
		return 0, false
	}
	const exitCode = 49 // field 52, counted from after the name
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(f) <= exitCode {
		return 0, false
	}
	code, err := strconv.ParseUint(f[exitCode], 10, 32)
	return unix.WaitStatus(code), err == nil
}

// KeepsExitStatus reports whether the kernel still tells the status of a process
// that its parent has waited for.
func KeepsExitStatus() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	var major, minor int
	n, _ := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	return n == 2 && (major > 6 || major == 6 && minor >= 15)
}

// pidfdInfo is struct pidfd_info of linux/pidfd.h in its first form, 64 bytes.
type pidfdInfo struct {
	mask, cgroup uint64
	_            [11]uint32
	exitCode     int32
}

// infoStatus asks the pidfd.
func (p *Process) infoStatus() (unix.WaitStatus, bool) {
	const (
		infoExit = 1 << 3 // PIDFD_INFO_EXIT
		getInfo  = 3<<30 | unsafe.Sizeof(pidfdInfo{})<<16 | 0xff<<8 | 11
	)
	info := pidfdInfo{mask: infoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(p.fd), getInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 || info.mask&infoExit == 0 {
		return 0, false
	}
	return unix.WaitStatus(info.exitCode), true
}

// Receives reports whether the process is blocked in a receive from a socket: one
// that serves requests has nothing to do then. It is false where that cannot be
// told (/proc/PID/syscall, CONFIG_HAVE_ARCH_TRACEHOOK).
func (p *Process) Receives() bool {
	data, err := readFile(fmt.Sprintf("/proc/%d/syscall", p.PID))
	if err != nil || !p.exists() {
		return false
	}
	number, _, _ := strings.Cut(string(data), " ")
	n, err := strconv.Atoi(number)
	return err == nil && (n == unix.SYS_RECVFROM || n == unix.SYS_RECVMSG)
}

// Stopped returns those processes of the tree that are stopped by a signal, not by
// a tracer.
func (t Tree) Stopped() ([]Ref, error) {
	var refs []Ref
	for _, p := range t {
		st, err := ReadStat(p.PID)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if st.State == 'T' && st.Start == p.Start {
			refs = append(refs, p.Ref)
		}
	}
	return refs, nil
}
