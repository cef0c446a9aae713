package hook

import (
	"os"
	"strings"
	"syscall"
)

// Program is the settler's executable where it cannot be found beside the
// hook; set when the program is linked.
var Program = "/usr/local/bin/netfreeze"

// ReadyFD is the descriptor on which the settler says that it listens: "ok", or
// what is wrong.
const ReadyFD = 3

// start runs the settler, in a session of its own so that it outlives CRIU and
// no terminal's signal reaches it, and waits until it listens.
func start(id, action string) (problem string) {
	// Descriptor 0 is closed in a script that CRIU runs; whatever were opened
	// next would become the settler's standard input.
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return "start the settler: " + err.Error()
	}
	defer null.Close() //nolint:errcheck // nothing was written
	ready, write, err := os.Pipe()
	if err != nil {
		return "start the settler: " + err.Error()
	}
	defer ready.Close() //nolint:errcheck // opened for reading

	program := settler()
	p, err := os.StartProcess(program, []string{program, "settle", id, action}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []*os.File{null, null, null, write},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	_ = write.Close()
	if err != nil {
		return "start the settler: " + err.Error() + " (is criu-netfreeze installed completely?)"
	}
	_ = p.Release()
	buf := make([]byte, 4096)
	n, err := ready.Read(buf)
	answer := string(buf[:n])
	switch {
	case answer == "ok":
		return ""
	case n > 0:
		return answer
	case err != nil:
		return "the settler ended before it was ready: " + err.Error()
	}
	return "the settler ended before it was ready"
}

// settler returns the path of the netfreeze program: the one of the same
// installation as this executable, PREFIX/libexec/criu-netfreeze/netfreeze-hook
// and PREFIX/bin/netfreeze.
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
