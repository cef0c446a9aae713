package action

import "strings"

// A message is one packet on a unix socket of type SOCK_SEQPACKET. A request
// is Version, script, action, image directory and root pid, separated by NUL.
// Each answer begins with a byte that says what follows: AnswerLine a line for
// CRIU's log, AnswerEnd the end and the exit code, in decimal.
const (
	// Version of the protocol: both programs have to be of one installation.
	Version = "1"
	// MaxMessage is the size of the largest message, in bytes.
	MaxMessage = 32 << 10
	// Dir is where the settlers' sockets are, and the records of package record.
	Dir = "/run/criu-netfreeze"
	// Patience is how long an action may take, in seconds, as LateAnswer says. It is
	// above every bound that the configuration allows (the drain before a dump: 10 s).
	Patience = 30

	AnswerLine = 'L'
	AnswerEnd  = 'E'
)

// What the script says when the settler fails it.
const (
	NoAnswer   = "the settler ended without an answer (was it killed?)"
	LateAnswer = "the settler has not answered for 30 s"
)

// Socket returns the path of the socket on which the settler of the CRIU called
// id (PID@START, see StartTime) takes its actions.
func Socket(id string) string { return Dir + "/" + id + ".sock" }

// Request is one call of a script by CRIU.
type Request struct {
	Script   string // name under which the script was executed
	Action   string // CRTOOLS_SCRIPT_ACTION
	ImageDir string // CRTOOLS_IMAGE_DIR: a path below CRIU's /proc entry, valid while CRIU lives
	InitPID  string // CRTOOLS_INIT_PID: the root task, in CRIU's pid namespace
}

// String returns the request as it is sent.
func (r Request) String() string {
	return strings.Join([]string{Version, r.Script, r.Action, r.ImageDir, r.InitPID}, "\x00")
}

// Base is a path's last element.
//
//go:nosplit
func Base(path string) string {
	from := 0
	for i := range len(path) {
		if path[i] == '/' {
			from = i + 1
		}
	}
	return path[from:]
}

// StartTime finds field 22 of /proc/PID/stat, when the process started in clock
// ticks since boot (proc_pid_stat(5)): it is stat[from:to], empty if the line is
// malformed. Fields are counted from the last parenthesis, since the second one,
// the program's name, may hold anything.
//
//go:nosplit
//go:norace
func StartTime(stat []byte) (from, to int) {
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
