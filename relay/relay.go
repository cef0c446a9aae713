// Package relay is what CRIU executes: it passes one action on to the
// transaction's settler and waits for the answer. Every exec happens while the
// user's tasks are frozen, so nothing is linked in here that is not needed for
// that; the settler is the `netfreeze` program, started by the first action
// and there until CRIU has ended.
//
// A message is one packet on a unix socket of type SOCK_SEQPACKET. The request
// is VERSION, script, action, image directory and root pid, separated by NUL.
// Each answer begins with a byte that says what follows: 'L' a line for CRIU's
// log, 'E' the end and the exit code, in decimal.
package relay

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Version of the protocol: both programs have to be of one installation.
const Version = "1"

// MaxMessage is the size of the largest message, in bytes.
const MaxMessage = 32 << 10

// Dir is where the settlers' sockets are. It is state.Dir, kept apart so that
// this package links nothing.
const Dir = "/run/criu-netfreeze"

// patience is how long an action may take. It is above every bound that the
// configuration allows (the drain before a dump: 10 s).
const patience = 30 // seconds, as lateAnswer says

// What is wrong with a settler.
const (
	noAnswer   = "the settler ended without an answer (was it killed?)"
	lateAnswer = "the settler has not answered for 30 s"
)

// Main handles one action and returns the exit code: 0, or 1 for anything that
// must make CRIU give up.
func Main() int {
	name := base(os.Args[0])
	action := os.Getenv("CRTOOLS_SCRIPT_ACTION")
	switch {
	case len(os.Args) > 1 && (os.Args[1] == "--help" || os.Args[1] == "-h"):
		say(help)
		return 0
	case !isScript(name):
		return fail(name, "this program does not know its task under this name; call it netfreeze-hook, pre-dump, post-dump, pre-restore or post-resume")
	case action == "":
		return fail(name, "CRTOOLS_SCRIPT_ACTION is not set: this is an action-script, to be named in a configuration file of CRIU (see netfreeze install --help)")
	case !known(action):
		return fail(name, "CRTOOLS_SCRIPT_ACTION has the value "+strconv.Quote(action)+", which is no action of CRIU")
	case !does(name, action):
		return 0
	}
	return forward(name, action)
}

const help = `This is an action-script for CRIU: CRIU runs it, with CRTOOLS_SCRIPT_ACTION set.
It freezes the network of the tasks that are dumped or restored.
Install it with: netfreeze install
`

// forward passes the action on to the settler of the CRIU that called.
func forward(name, action string) int {
	criu := os.Getppid()
	id, err := identify(criu)
	if err != "" {
		return fail(name, action+": "+err)
	}
	fd, err := connect(id, action)
	if err != "" {
		return fail(name, action+": "+err)
	}
	defer closeFD(fd)
	request := strings.Join([]string{Version, name, action, os.Getenv("CRTOOLS_IMAGE_DIR"), os.Getenv("CRTOOLS_INIT_PID")}, "\x00")
	if e := retry(func() error { return syscall.Sendto(fd, []byte(request), syscall.MSG_NOSIGNAL, nil) }); e != nil {
		return fail(name, action+": the settler does not take the action: "+e.Error())
	}
	buf := make([]byte, MaxMessage)
	for {
		n, _, e := syscall.Recvfrom(fd, buf, 0)
		switch {
		case e == syscall.EINTR:
		case e == syscall.EAGAIN:
			return fail(name, action+": "+lateAnswer)
		case e != nil:
			return fail(name, action+": the settler does not answer: "+e.Error())
		case n == 0:
			return fail(name, action+": "+noAnswer)
		case buf[0] == 'L':
			say(string(buf[1:n]))
		case buf[0] == 'E':
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
func connect(id, action string) (int, string) {
	fd, e := dial(id)
	if e == syscall.ENOENT || e == syscall.ECONNREFUSED { //nolint:errorlint // it comes from the kernel as it is
		if problem := start(id, action); problem != "" {
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
	err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: patience})
	if err == nil {
		err = retry(func() error { return syscall.Connect(fd, &syscall.SockaddrUnix{Name: Dir + "/" + id + ".sock"}) })
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
	from, to := startTime(data)
	if from == to {
		return "", "/proc/" + pid + "/stat is malformed"
	}
	return pid + "@" + string(data[from:to]), ""
}

// startTime finds field 22 of /proc/PID/stat: when the process started. Fields
// are counted from the last parenthesis, since the second one, the program's
// name, may hold anything.
//
//go:nosplit
//go:norace
func startTime(stat []byte) (from, to int) {
	const before = 20 // spaces from the parenthesis to the field
	for i, c := range stat {
		if c == ')' {
			from = i + 1
		}
	}
	for spaces := 0; from < len(stat); from++ {
		if stat[from] == ' ' {
			if spaces++; spaces == before {
				from++
				break
			}
		}
	}
	for to = from; to < len(stat) && '0' <= stat[to] && stat[to] <= '9'; to++ {
	}
	return from, to
}

// base is a path's last element.
//
//go:nosplit
func base(path string) string {
	from := 0
	for i := range len(path) {
		if path[i] == '/' {
			from = i + 1
		}
	}
	return path[from:]
}

func closeFD(fd int) { _ = syscall.Close(fd) }

// say writes to stderr, which is CRIU's log.
func say(text string) { _, _ = os.Stderr.WriteString(text) }

func fail(name, problem string) int {
	say("netfreeze: error: " + name + ": " + problem + "\n")
	return 1
}
