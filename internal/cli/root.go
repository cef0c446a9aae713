// SPDX-License-Identifier: Apache-2.0

// Package cli is the netfreeze command line: one constructor per command. It
// says what happens in words and JSON; what happens is in package freeze.
package cli

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
	"github.com/criu-netfreeze/criu-netfreeze/internal/settler/privilege"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// Version is set when the program is linked.
var Version = ""

// Main runs the command line and returns the exit code: 0, or 1 after an error,
// which stands on stderr.
func Main() int {
	err := New().Execute()
	if err == nil {
		return 0
	}
	for _, one := range each(err) {
		for line := range strings.Lines(code.Any(one).Error()) {
			fmt.Fprintf(os.Stderr, "netfreeze: error: %s\n", printable.Text(strings.TrimSuffix(line, "\n")))
		}
	}
	return 1
}

// each returns the errors that errors.Join has joined, or the one that there is.
func each(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(joined.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, each(e)...)
	}
	return all
}

// New returns the root command.
func New() *cobra.Command {
	root := &cobra.Command{
		Use:   "netfreeze",
		Short: "Keep TCP connections alive through CRIU's checkpoint and restore",
		Long: `netfreeze keeps established TCP connections alive through checkpoint and
restore by CRIU, whoever calls it: runc, crun, podman, CRI-O, containerd, or
criu by hand. Install the action-scripts once; nothing else has to change:

  netfreeze install

Afterwards every dump freezes the network of what it dumps, and applies the
policy of /etc/criu/netfreeze.toml once it has succeeded.

Exit codes: 0, all was done, and was seen to be done; 1, an error, which stands on
stderr, one line each, with a code that docs/troubleshooting.md explains. doctor and
inspect --target also exit 1 where they find what keeps things from working.
Durations are given with their units, for example 90s, 15m or 200ms.`,
		Example: `  netfreeze install --runtime runc,crun
  netfreeze status
  netfreeze thaw 3f2a91`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	root.AddCommand(
		newInstallCmd(), newUninstallCmd(), newConfigCmd(),
		newStatusCmd(), newFreezeCmd(), newThawCmd(), newKillCmd(),
		newExpectCmd(), newGuardCmd(), newPolicyCmd(), newNodeCmd(),
		newLogCmd(), newReportCmd(), newWatchCmd(), newDoctorCmd(), newInspectCmd(),
		newVersionCmd(),
	)
	addQuietFlag(root)
	addCompletions(root)
	return root
}

func version() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

// needRoot refuses early what cannot work otherwise.
func needRoot() error {
	if os.Geteuid() != 0 {
		return code.New(code.Root, "this needs root: run it with sudo")
	}
	return privilege.Check()
}

// keeper keeps the recorded freezes of this machine.
func keeper() *freeze.Keeper { return freeze.New(rules.Kernel{}) }
