// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// Program is the path of the settler's executable, for a hook that has none beside it;
// it is set when the hook is linked.
var Program = "/usr/local/libexec/criu-netfreeze/" + action.Settler

// startTime bounds the start of a settler. A hook that never ended would keep CRIU, and
// the tasks that it has stopped, waiting for ever.
var startTime = action.Patience * time.Second

// start starts the settler, and waits until it listens; if that takes too long the hook
// ends, which makes CRIU give up. The settler gets a session of its own, so that it
// outlives CRIU and no terminal's signal reaches it.
func start(id, act string) error {
	late := time.AfterFunc(startTime, func() {
		os.Exit(fail(action.Base(os.Args[0]), act+": "+action.StartSettler+action.LateAnswer))
	})
	defer late.Stop()
	// A script that CRIU executes has descriptor 0 closed. Whatever was opened next
	// would get that number, and become the settler's standard input.
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return code.New(code.NoSettler, action.StartSettler+err.Error())
	}
	defer null.Close()
	ready, write, err := os.Pipe()
	if err != nil {
		return code.New(code.NoSettler, action.StartSettler+err.Error())
	}
	defer ready.Close()

	program := settler()
	p, err := os.StartProcess(program, []string{program, id, act}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{action.SettlerPath},
		Files: []*os.File{null, null, null, write}, // the last one becomes action.ReadyFD
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	_ = write.Close()
	if err != nil {
		return code.New(code.NoSettler, action.StartSettler+err.Error()+" (is criu-netfreeze installed completely?)")
	}
	_ = p.Release()
	buf := make([]byte, 4096)
	n, err := ready.Read(buf)
	answer := string(buf[:n])
	switch {
	case answer == action.Ready:
		return nil
	case n > 0:
		return relayed(answer)
	case err != nil:
		return failed("the settler ended before it was ready", err)
	}
	return code.New(code.NoSettler, "the settler ended before it was ready")
}

// relayed is an error that the settler has reported, with its code.
type relayed string

func (e relayed) Error() string { return string(e) }

// settler returns the path of the settler's executable: the one beside this program, of
// the same installation, if there is one; else it is Program.
func settler() string {
	self, err := os.Readlink("/proc/self/exe")
	if err == nil {
		program := strings.TrimSuffix(self, action.Base(self)) + action.Settler
		var st syscall.Stat_t
		if syscall.Stat(program, &st) == nil {
			return program
		}
	}
	return Program
}
