// SPDX-License-Identifier: Apache-2.0

package action

// The environment variables in which CRIU says what it wants (criu/action-scripts.c).
const (
	EnvAction   = "CRTOOLS_SCRIPT_ACTION"
	EnvImageDir = "CRTOOLS_IMAGE_DIR"
	EnvInitPID  = "CRTOOLS_INIT_PID"
)

// Request is one call of a script by CRIU.
type Request struct {
	Script   string // name under which the script was executed
	Action   string // EnvAction
	ImageDir string // EnvImageDir: a path below CRIU's /proc entry, valid while CRIU lives
	InitPID  string // EnvInitPID: the root task, in CRIU's pid namespace
}

// Variable returns the value that an entry of the environment, NAME=VALUE, gives to
// the variable called name; ok is false if it is an entry of another one.
//
//go:nosplit
//go:norace
func Variable(entry, name string) (value string, ok bool) {
	n := len(name)
	if len(entry) <= n || entry[n] != '=' || entry[:n] != name {
		return "", false
	}
	return entry[n+1:], true
}

// String returns the request as it is sent.
func (r Request) String() string {
	size := len(Version) + len(r.Script) + len(r.Action) + len(r.ImageDir) + len(r.InitPID) + len("\x00\x00\x00\x00")
	return text(size, func(b *Buffer) { b.Request(&r) })
}
