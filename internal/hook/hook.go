// SPDX-License-Identifier: Apache-2.0

// Package hook is what CRIU executes. It passes one action on to the transaction's
// settler, and waits for the answer. Most of its calls come while the user's tasks
// are stopped, so it links only what that needs: no fmt, and no package of ours but
// action, which defines the messages. The settler is the program netfreeze-settler; the
// first action starts it, and it runs until CRIU has ended.
//
// On some architectures most calls never get here: see hook/early.
package hook

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// Main handles one action, which is in the environment, and returns the exit code: 0,
// or 1 for anything that must make CRIU give up. Problems are written to stderr.
func Main() int {
	r := action.Request{
		Script:   action.Base(os.Args[0]),
		Action:   os.Getenv(action.EnvAction),
		ImageDir: os.Getenv(action.EnvImageDir),
		InitPID:  os.Getenv(action.EnvInitPID),
	}
	switch {
	case len(os.Args) > 1 && (os.Args[1] == "--help" || os.Args[1] == "-h"):
		say(help)
		return 0
	case !action.IsScript(r.Script):
		return fail(r.Script, code.New(code.NotByCRIU, "this program does not know its task under this name; "+
			"call it netfreeze-hook, pre-dump, post-dump, pre-restore or post-resume").Error())
	case r.Action == "":
		return fail(r.Script, code.New(code.NotByCRIU, action.EnvAction+" is not set: this is an action-script, "+
			"to be named in a configuration file of CRIU (see netfreeze install --help)").Error())
	case !action.Known(r.Action):
		return fail(r.Script, code.New(code.NotByCRIU, action.EnvAction+" has the value "+strconv.Quote(r.Action)+", which is no action of CRIU").Error())
	case !action.Does(r.Script, r.Action):
		return 0
	}
	status, err := forward(r)
	if err == nil {
		return status
	}
	if text, ok := errors.AsType[relayed](err); ok {
		return fail(r.Script, r.Action+": "+string(text))
	}
	return fail(r.Script, r.Action+": "+code.Any(err).Error())
}

const help = `This is an action-script for CRIU: CRIU runs it, with CRTOOLS_SCRIPT_ACTION set.
It freezes the network of the tasks that are dumped or restored.
Install it with: netfreeze install
`

// forward passes the action on to the settler of the CRIU process that executed the
// script, and returns the settler's exit code. A settler that is killed meanwhile leaves
// the action to the next one: each may come twice.
func forward(r action.Request) (status int, err error) {
	criu, err := parent()
	if err != nil {
		return 1, err
	}
	id, err := identify(criu)
	if err != nil {
		return 1, err
	}
	if status, err = ask(id, r); errors.Is(err, errNoAnswer) {
		status, err = ask(id, r)
	}
	return status, err
}

// errNoAnswer says that the settler has ended in the middle.
var errNoAnswer = code.New(code.NoSettler, action.NoAnswer)

// ask has the settler of the transaction called id do the action.
func ask(id string, r action.Request) (status int, err error) {
	fd, err := connect(id, r.Action)
	if err != nil {
		return 1, err
	}
	defer closeFD(fd)
	message := []byte(r.String())
	err = retry(func() error { return syscall.Sendto(fd, message, syscall.MSG_NOSIGNAL, nil) })
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return 1, errNoAnswer
	}
	if err != nil {
		return 1, failed("the settler does not take the action", err)
	}
	buf := make([]byte, action.MaxMessage)
	for {
		n, _, err := syscall.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 1, code.New(code.NoSettler, action.LateAnswer)
		case errors.Is(err, syscall.ECONNRESET):
			return 1, errNoAnswer
		case err != nil:
			return 1, failed("the settler does not answer", err)
		case n == 0:
			return 1, errNoAnswer
		case buf[0] == action.AnswerLine:
			say(string(buf[1:n]))
		case buf[0] == action.AnswerEnd:
			return action.ExitCode(buf[1:n]), nil
		}
	}
}

// connect connects to the settler, and starts one if there is none: before the first
// action, or after the former one was killed.
func connect(id, act string) (fd int, err error) {
	fd, err = dial(id)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		if err := start(id, act); err != nil {
			return -1, err
		}
		fd, err = dial(id)
	}
	if err != nil {
		return -1, failed("connect to the settler", err)
	}
	return fd, nil
}

func dial(id string) (fd int, err error) {
	fd, err = syscall.Socket(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
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

// retry repeats a system call that is interrupted by a signal of Go's runtime.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// parent returns the pid of CRIU as /proc has it. That is the parent's, except in the
// restore of a container in an external pid namespace (of a pod that shares one): CRIU
// has entered that for its children (fork_with_pid in criu/cr-restore.c), so a script is
// in it, and from there CRIU has no number (getppid(2) gives 0).
func parent() (pid int, err error) {
	if pid = os.Getppid(); pid != 0 {
		return pid, nil
	}
	const path = "/proc/self/stat"
	stat, err := os.ReadFile(path)
	if err != nil {
		return 0, failed("find the CRIU process", err)
	}
	if pid = parentIn(string(stat)); pid == 0 {
		return 0, code.New(code.TaskGone, "find the CRIU process: "+path+" names no parent: is /proc that of the host?")
	}
	return pid, nil
}

// parentIn returns the parent in the content of /proc/PID/stat, 0 if there is none.
func parentIn(stat string) int {
	const ppid = 1 // the second field after the name, which may contain anything
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) <= ppid {
		return 0
	}
	pid, err := strconv.Atoi(f[ppid])
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// identify names the transaction after the CRIU process whose pid is given (see
// action.ID).
func identify(criu int) (id string, err error) {
	path := "/proc/" + strconv.Itoa(criu) + "/stat"
	stat, err := os.ReadFile(path)
	if err != nil {
		return "", failed("identify the CRIU process", err)
	}
	id, ok := action.ID(criu, stat)
	if !ok {
		return "", code.New(code.TaskGone, "identify the CRIU process: "+path+" is malformed")
	}
	return id, nil
}

// failed says what was being done when an error occurred. It stands in for fmt.Errorf,
// as fmt would make the program much larger.
func failed(doing string, err error) error { return errors.New(doing + ": " + err.Error()) }

func closeFD(fd int) { _ = syscall.Close(fd) }

// say writes to stderr, which is CRIU's log.
func say(text string) { _, _ = os.Stderr.WriteString(text) }

func fail(name, problem string) int {
	say(action.Complaint + name + ": " + problem + "\n")
	return 1
}
