// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
)

// gcPercent, in percent, puts the first garbage collection off to a heap of 16
// MiB, which few transactions reach: CRIU needs the processors.
const gcPercent = 400

// Main is the program netfreeze-settler: its arguments are its name, the id of a
// transaction and the action that the action-script starts it for. It returns the exit
// code: 0, or 1 after an error, which stands on stderr.
func Main(args []string) int {
	if len(args) == 2 && (args[1] == "--help" || args[1] == "-h") {
		fmt.Println("This is the settler of criu-netfreeze: the action-script starts it, and it does what CRIU asks for.")
		return 0
	}
	err := code.New(code.NotByCRIU, "the settler is started by the action-script, not by hand")
	if ready := os.NewFile(action.ReadyFD, "ready"); ready != nil && len(args) == 3 {
		if _, statErr := ready.Stat(); statErr == nil {
			debug.SetGCPercent(gcPercent)
			if args[2] == action.PreRestore {
				criuimg.Warm()
			}
			err = Run(args[1], ready)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "netfreeze: error: %s\n", printable.Text(code.Any(err).Error()))
		return 1
	}
	return 0
}
