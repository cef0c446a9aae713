// SPDX-License-Identifier: Apache-2.0

package action

// A message is one packet on a unix socket of type SOCK_SEQPACKET. A request
// (Buffer.Request) is Version, script, action, image directory and root pid,
// separated by NUL. Each answer begins with a byte that says what follows:
// AnswerLine a line for CRIU's log, AnswerEnd the exit code in decimal, after which
// nothing more comes.
const (
	// Version is the version of the protocol. Script and settler must agree on it,
	// so both have to come from one installation.
	Version = "1"
	// MaxMessage is the size of the largest message, in bytes.
	MaxMessage = 32 << 10
	// Dir is where the settlers' sockets are, and the records of package record.
	Dir = "/run/criu-netfreeze"
	// SocketSuffix ends the names of the sockets there.
	SocketSuffix = ".sock"
	// Patience is how long a script waits for an answer, in seconds; LateAnswer
	// quotes it. It exceeds every bound that the configuration allows (10 s for the
	// drain before a dump).
	Patience = 30

	AnswerLine = 'L'
	AnswerEnd  = 'E'
)

// How a script starts the settler.
const (
	// Settler is the name of the settler's executable, which is installed beside the
	// script's. Its arguments are an id (see Socket) and the action that it is started for.
	Settler = "netfreeze-settler"
	// SettlerPath is all of its environment.
	SettlerPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// ReadyFD is its descriptor on which it says Ready once it listens, or else why it
	// cannot.
	ReadyFD = 3
	Ready   = "ok"
)

// What a script writes to CRIU's log when a call fails begins with Complaint, and the
// script's name; NoAnswer and LateAnswer say how a settler failed to answer, and
// StartSettler stands before what kept one from being started.
const (
	Complaint    = "netfreeze: error: "
	NoAnswer     = "the settler ended without an answer (was it killed?)"
	LateAnswer   = "the settler has not answered for 30 s"
	StartSettler = "start the settler: "
)

// Socket returns the path of the socket on which the settler of one CRIU process
// accepts actions; id is that process's, PID@START (see ID).
func Socket(id string) string {
	return text(len(Dir)+len("/")+len(id)+len(SocketSuffix), func(b *Buffer) { b.Socket(id) })
}

// ID names the transaction after the CRIU process that runs it: PID@START, where
// START is when the process started, so that a pid that is used again is another
// name. stat is the content of /proc/PID/stat; ok is false if it is malformed.
func ID(pid int, stat []byte) (id string, ok bool) {
	id = text(len(stat)+20, func(b *Buffer) { ok = b.ID(pid, stat) })
	return id, ok
}

// text returns what put adds to an empty buffer of so many bytes.
func text(size int, put func(*Buffer)) string {
	b := NewBuffer(make([]byte, size))
	put(&b)
	return b.String()
}

// ExitCode returns the exit code that follows AnswerEnd: 0 for success, and 1, which
// makes CRIU give up, for anything else.
//
//go:nosplit
//go:norace
func ExitCode(answer []byte) int {
	if len(answer) == 1 && answer[0] == '0' {
		return 0
	}
	return 1
}

// Base returns a path's last element, which is empty if the path ends in a slash.
//
//go:nosplit
//go:norace
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
// ticks since boot (proc_pid_stat(5)): it is stat[from:to], which is empty if the
// line is malformed. Fields are counted from the last parenthesis, because the
// second field, the program's name, may contain anything.
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
