// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// Commit is the commit that the program was built from, set when it is linked.
var Commit = ""

// built says what a program is, as JSON.
type built struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// Protocol is the version of what the action-script and the settler say to each
	// other: both have to have the same.
	Protocol string `json:"protocol"`
}

func newVersionCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version, and what the program was built from",
		Long: `Print the version, the commit, the version of Go, the platform, and the version
of the protocol between the action-script and this program, which have to come
from one installation.`,
		Example: `  netfreeze version
  netfreeze version -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			b := build()
			if output == outputJSON {
				return encodeJSON(cmd.OutOrStdout(), b)
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			_, _ = fmt.Fprintf(tw, "netfreeze\t%s\ncommit\t%s\ngo\t%s\nplatform\t%s\nprotocol\t%s\n",
				b.Version, dash(b.Commit), b.Go, b.Platform, b.Protocol)
			return tw.Flush()
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

// build describes the running program.
func build() built {
	return built{
		Version: version(), Commit: commit(), Go: runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH, Protocol: action.Version,
	}
}

// commit returns the commit as the linker, or else as Go's own stamp has it.
func commit() string {
	if Commit != "" {
		return Commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
