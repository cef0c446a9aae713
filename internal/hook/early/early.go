// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package early

import (
	"syscall"
	"unsafe"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// There is no goroutine here and no heap: nothing allocates, no stack grows (nosplit;
// TestCalls checks what is called), and buffers are global. No pointer is stored
// anywhere but in a local variable, or the compiler may add a write barrier. Functions
// are marked noinline because the linker limits the stack of a chain of nosplit calls
// to about 800 bytes, and the frame of an inlined function counts in every chain.

// entry is where the kernel starts the program. It calls early, and then jumps to
// the runtime's own entry. It is in early_linux_GOARCH.s.
func entry()

// nothing is where thread-local storage appears to be (amd64).
var nothing [2]uint64

// What is used from assembly alone.
var _, _, _ = entry, early, nothing

var (
	message  [action.MaxMessage]byte
	name     [64]byte           // PID@START
	unixAddr [2 + 108]byte      // struct sockaddr_un
	longWait = syscall.Timeval{ // the time-out of an answer
		Sec: action.Patience,
	}
)

// atFDCWD is AT_FDCWD of openat(2). arm64 has no open.
const atFDCWD = -100

// early does the action that the program was executed for and exits, or returns.
// start points to the stack as the kernel made it: argc, argv and envp.
//
//go:nosplit
//go:norace
func early(start *uintptr) {
	stack := unsafe.Pointer(start)
	if *start != 1 {
		return // an argument: somebody asks for help
	}
	path, _ := word(stack, 1)
	r := action.Request{
		Script:   action.Base(path),
		Action:   getenv(stack, action.EnvAction),
		ImageDir: getenv(stack, action.EnvImageDir),
		InitPID:  getenv(stack, action.EnvInitPID),
	}
	if absent := do(&r); absent && action.Begins(r.Action) && startSettler(&r) {
		do(&r)
	}
}

// do does the action and exits, or returns if it could not even start to: absent says
// whether that is because there is no settler.
//
//go:nosplit
//go:noinline
//go:norace
func do(r *action.Request) (absent bool) {
	switch {
	case !action.IsScript(r.Script), !action.Known(r.Action):
		return false // something is wrong
	case !action.Does(r.Script, r.Action):
		exit(0)
	}
	id := identify(sys(syscall.SYS_GETPPID, 0, 0, 0, 0, 0))
	if id == "" {
		return false
	}
	fd := connect(id)
	if fd < 0 {
		return fd == -int(syscall.ENOENT) || fd == -int(syscall.ECONNREFUSED)
	}
	if !send(fd, r) {
		sys(syscall.SYS_CLOSE, fd, 0, 0, 0, 0)
		return false
	}
	// The settler has the action now. It is left to main, which sends it a second time,
	// only if the settler has ended since.
	receive(fd, r)
	sys(syscall.SYS_CLOSE, fd, 0, 0, 0, 0)
	return false
}

// identify returns the id of the CRIU process that executed the script (see
// action.ID), or an empty string.
//
//go:nosplit
//go:noinline
//go:norace
func identify(criu int) string {
	path := action.NewBuffer(message[:])
	path.Stat(criu)
	path.Byte(0)
	file := sys(syscall.SYS_OPENAT, atFDCWD, at(&message[0]), syscall.O_RDONLY|syscall.O_CLOEXEC, 0, 0)
	if file < 0 {
		return ""
	}
	n := sys(syscall.SYS_READ, file, at(&message[0]), len(message), 0, 0)
	sys(syscall.SYS_CLOSE, file, 0, 0, 0, 0)
	if n <= 0 {
		return ""
	}
	id := action.NewBuffer(name[:])
	if !id.ID(criu, message[:n]) || id.Len() == len(name) { // a zero ends it
		return ""
	}
	return unsafe.String(&name[0], id.Len())
}

// connect connects to the settler of the CRIU process called id. It returns a
// descriptor, or an error number, negated.
//
//go:nosplit
//go:noinline
//go:norace
func connect(id string) int {
	addr := action.NewBuffer(unixAddr[:])
	addr.Byte(syscall.AF_UNIX) // 16 bits, little-endian
	addr.Byte(0)
	addr.Socket(id)
	addr.Byte(0)
	if addr.Full() {
		return -int(syscall.ENAMETOOLONG)
	}
	fd := sys(syscall.SYS_SOCKET, syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0, 0, 0)
	if fd < 0 {
		return fd
	}
	failed := sys(syscall.SYS_SETSOCKOPT, fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO,
		int(uintptr(unsafe.Pointer(&longWait))), int(unsafe.Sizeof(longWait)))
	if failed >= 0 {
		failed = sys(syscall.SYS_CONNECT, fd, at(&unixAddr[0]), addr.Len(), 0, 0)
	}
	if failed < 0 {
		sys(syscall.SYS_CLOSE, fd, 0, 0, 0, 0)
		return failed
	}
	return fd
}

// send sends the request, and reports whether it could.
//
//go:nosplit
//go:noinline
//go:norace
func send(fd int, r *action.Request) bool {
	m := action.NewBuffer(message[:])
	m.Request(r)
	return !m.Full() && sys(syscall.SYS_SENDTO, fd, at(&message[0]), m.Len(), syscall.MSG_NOSIGNAL, 0) >= 0
}

// receive passes on the settler's answer and exits; it returns if the settler has ended
// without one.
//
//go:nosplit
//go:noinline
//go:norace
func receive(fd int, r *action.Request) {
	for {
		n := sys(syscall.SYS_RECVFROM, fd, at(&message[0]), len(message), 0, 0)
		switch {
		case n > 0 && message[0] == action.AnswerLine:
			sys(syscall.SYS_WRITE, syscall.Stderr, at(&message[1]), n-1, 0, 0)
		case n > 0 && message[0] == action.AnswerEnd:
			exit(action.ExitCode(message[1:n]))
		case n > 0:
			exit(1)
		case n == -int(syscall.EINTR): // stopped by a signal, and continued
		case n == 0, n == -int(syscall.ECONNRESET):
			return
		case n == -int(syscall.EAGAIN):
			complain(r, action.LateAnswer+noSettler)
		default:
			complain(r, "the settler does not answer"+noSettler)
		}
	}
}

// noSettler is code.NoSettler, as an error ends with it.
const noSettler = " [NF603]"

// complain writes to CRIU's log what went wrong, and makes CRIU give up.
//
//go:nosplit
//go:noinline
//go:norace
func complain(r *action.Request, problem string) {
	m := action.NewBuffer(message[:])
	m.Text(action.Complaint)
	m.Text(r.Script)
	m.Text(": ")
	m.Text(r.Action)
	m.Text(": ")
	m.Text(problem)
	m.Byte('\n')
	sys(syscall.SYS_WRITE, syscall.Stderr, at(&message[0]), m.Len(), 0, 0)
	exit(1)
}

//go:nosplit
//go:norace
func exit(code int) {
	for {
		sys(syscall.SYS_EXIT_GROUP, code, 0, 0, 0, 0)
	}
}

// sys makes a system call. A result below zero is an error number, negated.
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

// at returns the address of something that never moves.
//
//go:nosplit
//go:norace
func at(p *byte) int { return int(uintptr(unsafe.Pointer(p))) }

// word returns the text that the n-th word of the stack points to. ok is false for a
// null pointer, which ends a list.
//
//go:nosplit
//go:norace
func word(stack unsafe.Pointer, n int) (text string, ok bool) {
	p := *(**byte)(unsafe.Add(stack, n*int(unsafe.Sizeof(stack))))
	if p == nil {
		return "", false
	}
	length := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), length)) != 0 {
		length++
	}
	return unsafe.String(p, length), true
}

// getenv returns the value of an environment variable, which is empty if there is
// none. Of two variables of one name the first counts, as for os.Getenv.
//
//go:nosplit
//go:noinline
//go:norace
func getenv(stack unsafe.Pointer, name string) string {
	for i := 3; ; i++ { // 0 is argc, 1 argv[0], and 2 the end of argv
		entry, ok := word(stack, i)
		if !ok {
			return ""
		}
		if value, ok := action.Variable(entry, name); ok {
			return value
		}
	}
}
