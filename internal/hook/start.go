// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// Program is the path of the settler's executable, for a hook that has none beside it;
// it is set when the hook is linked.
var Program = "/usr/local/bin/netfreeze"

// ReadyFD is the descriptor on which the settler reports that it listens, by "ok", or
// else why it cannot.
const ReadyFD = 3

// startTime bounds the start of a settler. A hook that never ended would keep CRIU, and
// the tasks that it has stopped, waiting for ever.
var startTime = action.Patience * time.Second

// start starts the settler, and waits until it listens; if that takes too long the hook
// ends, which makes CRIU give up. The settler gets a session of its own, so that it
// outlives CRIU and no terminal's signal reaches it.
func start(id, act string) error {
	late := time.AfterFunc(startTime, func() {
		os.Exit(fail(action.Base(os.Args[0]), act+": start the settler: "+action.LateAnswer))
	})
	defer late.Stop()
	// A script that CRIU executes has descriptor 0 closed. Whatever was opened next
	// would get that number, and become the settler's standard input.
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return failed("start the settler", err)
	}
	defer null.Close()
	ready, write, err := os.Pipe()
	if err != nil {
		return failed("start the settler", err)
	}
	defer ready.Close()

	program := settler()
	p, err := os.StartProcess(program, []string{program, "settle", id, act}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []*os.File{null, null, null, write},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	_ = write.Close()
	if err != nil {
		return code.New(code.NoSettler, "start the settler: "+err.Error()+" (is criu-netfreeze installed completely?)")
	}
	_ = p.Release()
	buf := make([]byte, 4096)
	n, err := ready.Read(buf)
	answer := string(buf[:n])
	switch {
	case answer == "ok":
		return nil
	case n > 0:
		return errors.New(answer) // with its code
	case err != nil:
		return failed("the settler ended before it was ready", err)
	}
	return code.New(code.NoSettler, "the settler ended before it was ready")
}

// settler returns the path of the netfreeze program: if this executable is
// PREFIX/libexec/criu-netfreeze/netfreeze-hook, that is PREFIX/bin/netfreeze, of the
// same installation; else it is Program.
func settler() string {
	self, err := os.Readlink("/proc/self/exe")
	if err == nil {
		if prefix, ok := strings.CutSuffix(self, "/libexec/criu-netfreeze/netfreeze-hook"); ok {
			program := prefix + "/bin/netfreeze"
			var st syscall.Stat_t
			if syscall.Stat(program, &st) == nil {
				return program
			}
		}
	}
	return Program
}
