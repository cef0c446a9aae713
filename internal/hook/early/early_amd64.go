package early

import (
	"syscall"
	"unsafe"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// CRIU executes a script for every action, mostly while the user's tasks are
// stopped, and the start of Go's runtime, its threads above all, takes longer
// than all else. Nearly every call wants little: to find out that the action is
// none of ours, or to pass it on to a settler that is there. So the program is
// linked to begin at entry (-E in the Makefile), which calls early before the
// runtime starts. Whatever early does not manage it leaves to Main, which does
// everything, and is all there is in a program that is linked as usual.
//
// There is no goroutine here and no heap: nothing allocates, no stack grows
// (nosplit; TestEarly makes sure of what is called), buffers are global.

// entry is in early_amd64.s.
func entry()

// nothing is where thread-local storage seems to be.
var nothing [2]uint64

// What is used from assembly alone.
var _, _, _ = entry, early, nothing

// The buffers of early.
var (
	message  [action.MaxMessage]byte
	unixAddr [2 + 108]byte // struct sockaddr_un
	longWait = syscall.Timeval{Sec: action.Patience}
)

// early does the action that the program was executed for and exits, or it
// returns. What start points to is the stack as the kernel made it: argc, argv
// and envp.
//
//go:nosplit
//go:norace
func early(start *uintptr) {
	stack := unsafe.Pointer(start)
	if *start != 1 {
		return
	}
	name, act, dir, pid := action.Base(word(stack, 1)), "", "", ""
	for i := 3; ; i++ {
		v := word(stack, i)
		if v == "" {
			break
		}
		switch {
		case begins(v, "CRTOOLS_SCRIPT_ACTION="):
			act = v[len("CRTOOLS_SCRIPT_ACTION="):]
		case begins(v, "CRTOOLS_IMAGE_DIR="):
			dir = v[len("CRTOOLS_IMAGE_DIR="):]
		case begins(v, "CRTOOLS_INIT_PID="):
			pid = v[len("CRTOOLS_INIT_PID="):]
		}
	}
	switch {
	case !action.IsScript(name), !action.Known(act), act == action.PreDump, act == action.PreRestore:
		return // something is wrong, or a settler has to be started
	case !action.Does(name, act):
		exit(0)
	}
	fd := reach()
	if fd < 0 {
		return
	}
	m := filled{to: message[:]}
	for i, part := range [...]string{action.Version, name, act, dir, pid} {
		if i > 0 {
			m.add(0)
		}
		m.text(part)
	}
	if m.full || sys(syscall.SYS_SENDTO, fd, at(&message[0]), m.n, syscall.MSG_NOSIGNAL, 0) < 0 {
		sys(syscall.SYS_CLOSE, fd, 0, 0, 0, 0)
		return
	}
	for {
		n := sys(syscall.SYS_RECVFROM, fd, at(&message[0]), len(message), 0, 0)
		switch {
		case n > 0 && message[0] == action.AnswerLine:
			sys(syscall.SYS_WRITE, syscall.Stderr, at(&message[1]), n-1, 0, 0)
		case n == 2 && message[0] == action.AnswerEnd && message[1] == '0':
			exit(0)
		case n > 0:
			exit(1)
		case n == -int(syscall.EINTR): // a signal that has stopped us
		case n == 0:
			complain(name, act, action.NoAnswer)
		case n == -int(syscall.EAGAIN):
			complain(name, act, action.LateAnswer)
		default:
			complain(name, act, "the settler does not answer")
		}
	}
}

// reach connects to the settler of the CRIU that called. It returns a
// descriptor, or a negative number.
//
//go:nosplit
//go:norace
func reach() int {
	criu := sys(syscall.SYS_GETPPID, 0, 0, 0, 0, 0)
	path := filled{to: message[:]}
	path.text("/proc/")
	path.number(criu)
	path.text("/stat")
	path.add(0)
	file := sys(syscall.SYS_OPEN, at(&message[0]), syscall.O_RDONLY|syscall.O_CLOEXEC, 0, 0, 0)
	if file < 0 {
		return -1
	}
	n := sys(syscall.SYS_READ, file, at(&message[0]), len(message), 0, 0)
	sys(syscall.SYS_CLOSE, file, 0, 0, 0, 0)
	if n <= 0 {
		return -1
	}
	from, to := action.StartTime(message[:n])
	addr := filled{to: unixAddr[:]}
	addr.add(syscall.AF_UNIX)
	addr.add(0)
	addr.text(action.Dir + "/")
	addr.number(criu)
	addr.add('@')
	for _, c := range message[from:to] {
		addr.add(c)
	}
	addr.text(".sock")
	addr.add(0)
	fd := sys(syscall.SYS_SOCKET, syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0, 0, 0)
	if fd < 0 {
		return -1
	}
	if from == to || addr.full ||
		sys(syscall.SYS_SETSOCKOPT, fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, int(uintptr(unsafe.Pointer(&longWait))), int(unsafe.Sizeof(longWait))) < 0 ||
		sys(syscall.SYS_CONNECT, fd, at(&unixAddr[0]), addr.n, 0, 0) < 0 {
		sys(syscall.SYS_CLOSE, fd, 0, 0, 0, 0)
		return -1
	}
	return fd
}

// complain says what is wrong, in CRIU's log, and makes CRIU give up.
//
//go:nosplit
//go:norace
func complain(name, act, text string) {
	m := filled{to: message[:]}
	m.text("netfreeze: error: ")
	m.text(name)
	m.text(": ")
	m.text(act)
	m.text(": ")
	m.text(text)
	m.add('\n')
	sys(syscall.SYS_WRITE, syscall.Stderr, at(&message[0]), m.n, 0, 0)
	exit(1)
}

//go:nosplit
//go:norace
func exit(code int) {
	for {
		sys(syscall.SYS_EXIT_GROUP, code, 0, 0, 0, 0)
	}
}

// sys makes a system call. What it returns below zero is an error's number.
//
//go:nosplit
//go:norace
func sys(number uintptr, a, b, c, d, e int) int {
	r, _, errno := syscall.RawSyscall6(number, uintptr(a), uintptr(b), uintptr(c), uintptr(d), uintptr(e), 0)
	if errno != 0 {
		return -int(errno)
	}
	return int(r)
}

// at is the address of something that never moves.
//
//go:nosplit
//go:norace
func at(p *byte) int { return int(uintptr(unsafe.Pointer(p))) }

// word is the text that the n-th word of the stack points to, "" at the end of
// the list.
//
//go:nosplit
//go:norace
func word(stack unsafe.Pointer, n int) string {
	p := *(**byte)(unsafe.Add(stack, n*int(unsafe.Sizeof(stack))))
	if p == nil {
		return ""
	}
	length := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), length)) != 0 {
		length++
	}
	return unsafe.String(p, length)
}

//go:nosplit
//go:norace
func begins(s, with string) bool { return len(s) >= len(with) && s[:len(with)] == with }

// filled is a buffer that is filled from its beginning, as far as there is room.
type filled struct {
	to   []byte
	n    int
	full bool
}

//go:nosplit
//go:norace
func (f *filled) add(c byte) {
	if f.n >= len(f.to) {
		f.full = true
		return
	}
	f.to[f.n] = c
	f.n++
}

//go:nosplit
//go:norace
func (f *filled) text(s string) {
	for i := range len(s) {
		f.add(s[i])
	}
}

// number adds a number that is not negative, in decimal.
//
//go:nosplit
//go:norace
func (f *filled) number(n int) {
	unit := 1
	for n/unit >= 10 {
		unit *= 10
	}
	for ; unit > 0; unit /= 10 {
		f.add(byte('0' + n/unit%10))
	}
}
