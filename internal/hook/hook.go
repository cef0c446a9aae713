// Package hook is what CRIU executes: it passes one action on to the
// transaction's settler and waits for the answer. Every exec happens while the
// user's tasks are frozen, so nothing is linked in here that is not needed for
// that; the settler is the `netfreeze` program, started by the first action
// and there until CRIU has ended.
//
// The messages are package action's.
package hook

import (
	"os"
	"strconv"
	"syscall"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// Main handles one action and returns the exit code: 0, or 1 for anything that
// must make CRIU give up.
func Main() int {
	name := action.Base(os.Args[0])
	act := os.Getenv("CRTOOLS_SCRIPT_ACTION")
	switch {
	case len(os.Args) > 1 && (os.Args[1] == "--help" || os.Args[1] == "-h"):
		say(help)
		return 0
	case !action.IsScript(name):
		return fail(name, "this program does not know its task under this name; call it netfreeze-hook, pre-dump, post-dump, pre-restore or post-resume")
	case act == "":
		return fail(name, "CRTOOLS_SCRIPT_ACTION is not set: this is an action-script, to be named in a configuration file of CRIU (see netfreeze install --help)")
	case !action.Known(act):
		return fail(name, "CRTOOLS_SCRIPT_ACTION has the value "+strconv.Quote(act)+", which is no action of CRIU")
	case !action.Does(name, act):
		return 0
	}
	return forward(name, act)
}

const help = `This is an action-script for CRIU: CRIU runs it, with CRTOOLS_SCRIPT_ACTION set.
It freezes the network of the tasks that are dumped or restored.
Install it with: netfreeze install
`

// forward passes the action on to the settler of the CRIU that called.
func forward(name, act string) int {
	criu := os.Getppid()
	id, err := identify(criu)
	if err != "" {
		return fail(name, act+": "+err)
	}
	fd, err := connect(id, act)
	if err != "" {
		return fail(name, act+": "+err)
	}
	defer closeFD(fd)
	request := action.Request{Script: name, Action: act, ImageDir: os.Getenv("CRTOOLS_IMAGE_DIR"), InitPID: os.Getenv("CRTOOLS_INIT_PID")}.String()
	if e := retry(func() error { return syscall.Sendto(fd, []byte(request), syscall.MSG_NOSIGNAL, nil) }); e != nil {
		return fail(name, act+": the settler does not take the action: "+e.Error())
	}
	buf := make([]byte, action.MaxMessage)
	for {
		n, _, e := syscall.Recvfrom(fd, buf, 0)
		switch {
		case e == syscall.EINTR:
		case e == syscall.EAGAIN:
			return fail(name, act+": "+action.LateAnswer)
		case e != nil:
			return fail(name, act+": the settler does not answer: "+e.Error())
		case n == 0:
			return fail(name, act+": "+action.NoAnswer)
		case buf[0] == action.AnswerLine:
			say(string(buf[1:n]))
		case buf[0] == action.AnswerEnd:
			code, e := strconv.Atoi(string(buf[1:n]))
			if e != nil {
				code = 1
			}
			return code
		}
	}
}

// connect reaches the settler, and starts one where there is none: at the
// first action, or after the former one was killed.
func connect(id, act string) (int, string) {
	fd, e := dial(id)
	if e == syscall.ENOENT || e == syscall.ECONNREFUSED { //nolint:errorlint // it comes from the kernel as it is
		if problem := start(id, act); problem != "" {
			return -1, problem
		}
		fd, e = dial(id)
	}
	if e != nil {
		return -1, "connect to the settler: " + e.Error()
	}
	return fd, ""
}

func dial(id string) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: action.Patience})
	if err == nil {
		err = retry(func() error { return syscall.Connect(fd, &syscall.SockaddrUnix{Name: action.Socket(id)}) })
	}
	if err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

// retry repeats a system call that a signal of Go's runtime interrupts.
func retry(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR { //nolint:errorlint // it comes from the kernel as it is
			return err
		}
	}
}

// identify names the transaction after the CRIU process that called: PID@START,
// where START is field 22 of its stat, so that a reused pid is another name.
func identify(criu int) (id, problem string) {
	pid := strconv.Itoa(criu)
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return "", "read what CRIU's process is: " + err.Error()
	}
	from, to := action.StartTime(data)
	if from == to {
		return "", "/proc/" + pid + "/stat is malformed"
	}
	return pid + "@" + string(data[from:to]), ""
}

func closeFD(fd int) { _ = syscall.Close(fd) }

// say writes to stderr, which is CRIU's log.
func say(text string) { _, _ = os.Stderr.WriteString(text) }

func fail(name, problem string) int {
	say("netfreeze: error: " + name + ": " + problem + "\n")
	return 1
}
