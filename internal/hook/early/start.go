// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package early

import (
	"syscall"
	"unsafe"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// What execve(2) is given: pointers, as numbers, since no pointer may be stored.
var (
	program   [4096]byte // the path of the settler's executable
	arguments [4]uintptr // it, the transaction and the action
	variables [2]uintptr
)

var (
	ready    [2]int32 // the pipe on which the settler says that it listens
	answer   [4096]byte
	poll     pollFD
	longPoll = syscall.Timespec{Sec: action.Patience} // ppoll(2) counts it down
)

// pollFD is struct pollfd of poll(2).
type pollFD struct {
	fd              int32
	events, revents int16
}

const pollIn = 1 // POLLIN

// Texts for the kernel, which end in a zero.
const (
	ownPath  = "/proc/self/exe\x00"
	nullPath = "/dev/null\x00"
	rootPath = "/\x00"
	pathEnv  = action.SettlerPath + "\x00"
)

// startSettler starts the settler that lies beside this program, for the CRIU process that
// identify has identified, and returns when it listens. If it cannot, it says why, and the
// program ends. It returns false where nothing was started, or nothing was said: then
// main tries.
//
//go:nosplit
//go:norace
func startSettler(r *action.Request) bool {
	if !findSettler() {
		return false
	}
	pipe := spawn(r)
	if pipe < 0 {
		return false
	}
	ok := listens(r, pipe)
	sys(syscall.SYS_CLOSE, pipe, 0, 0, 0, 0)
	return ok
}

// spawn starts the settler, and returns the end of the pipe on which it reports, or a
// negative number.
//
//go:nosplit
//go:noinline
//go:norace
func spawn(r *action.Request) int {
	null := sys(syscall.SYS_OPENAT, atFDCWD, addressOf(nullPath), syscall.O_RDWR|syscall.O_CLOEXEC, 0, 0)
	if null < 0 {
		return null
	}
	if sys(syscall.SYS_PIPE2, int(uintptr(unsafe.Pointer(&ready))), syscall.O_CLOEXEC, 0, 0, 0) < 0 {
		sys(syscall.SYS_CLOSE, null, 0, 0, 0, 0)
		return -1
	}
	from, to, child := int(ready[0]), int(ready[1]), -1
	if from > syscall.Stderr { // else somebody has closed more than CRIU does
		arguments = [4]uintptr{uintptr(at(&program[0])), uintptr(at(&name[0])), uintptr(addressOf(r.Action)), 0}
		variables = [2]uintptr{uintptr(addressOf(pathEnv)), 0}
		child = sys(syscall.SYS_CLONE, int(syscall.SIGCHLD), 0, 0, 0, 0) // fork(2)
	}
	if child == 0 {
		become(null, to)
	}
	sys(syscall.SYS_CLOSE, null, 0, 0, 0, 0)
	sys(syscall.SYS_CLOSE, to, 0, 0, 0, 0)
	if child < 0 {
		sys(syscall.SYS_CLOSE, from, 0, 0, 0, 0)
		return -1
	}
	return from
}

// findSettler puts the path of the settler beside this program into program, and reports
// whether there is one.
//
//go:nosplit
//go:noinline
//go:norace
func findSettler() bool {
	n := sys(syscall.SYS_READLINKAT, atFDCWD, addressOf(ownPath), at(&program[0]), len(program), 0)
	if n <= 0 || n >= len(program) {
		return false
	}
	for n > 0 && program[n-1] != '/' {
		n--
	}
	path := action.NewBuffer(program[n:])
	path.Text(action.Settler)
	path.Byte(0)
	return !path.Full() && sys(syscall.SYS_FACCESSAT, atFDCWD, at(&program[0]), 0, 0, 0) == 0
}

// become makes this process, a child of the action-script, the settler. It gets a session
// of its own, so that no terminal's signal reaches it, /dev/null as what a process begins
// with, and the pipe as action.ReadyFD. It does not return.
//
//go:nosplit
//go:noinline
//go:norace
func become(null, pipe int) {
	sys(syscall.SYS_SETSID, 0, 0, 0, 0, 0)
	sys(syscall.SYS_CHDIR, addressOf(rootPath), 0, 0, 0, 0) // nobody need wait for it to unmount a file system
	for fd := range syscall.Stderr + 1 {
		if fd == null {
			sys(syscall.SYS_FCNTL, fd, syscall.F_SETFD, 0, 0, 0) // it stays open
			continue
		}
		sys(syscall.SYS_DUP3, null, fd, 0, 0, 0)
	}
	sys(syscall.SYS_DUP3, pipe, action.ReadyFD, 0, 0, 0) // pipe is another number: its other end is below it
	sys(syscall.SYS_EXECVE, at(&program[0]), int(uintptr(unsafe.Pointer(&arguments))), int(uintptr(unsafe.Pointer(&variables))), 0, 0)
	exit(1) // the pipe ends, and with it the wait
}

// listens waits for the settler to say that it listens. If it says anything else, or
// nothing for too long, so does the program, and ends.
//
//go:nosplit
//go:noinline
//go:norace
func listens(r *action.Request, pipe int) bool {
	poll = pollFD{fd: int32(pipe), events: pollIn}
	for {
		n := sys(syscall.SYS_PPOLL, int(uintptr(unsafe.Pointer(&poll))), 1, int(uintptr(unsafe.Pointer(&longPoll))), 0, 0)
		if n == 0 {
			complain(r, startLate)
		}
		if n != -int(syscall.EINTR) {
			break
		}
	}
	n := sys(syscall.SYS_READ, pipe, at(&answer[0]), len(answer), 0, 0)
	if n <= 0 {
		return false
	}
	said := unsafe.String(&answer[0], n)
	if said != action.Ready {
		complain(r, said)
	}
	return true
}

// startLate is what main says then, too.
const startLate = action.StartSettler + action.LateAnswer

// addressOf returns the address of a text that never moves.
//
//go:nosplit
//go:norace
func addressOf(s string) int { return int(uintptr(unsafe.Pointer(unsafe.StringData(s)))) }
