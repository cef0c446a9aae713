// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
)

// quietFlag is the flag that silences what commands say they did.
const quietFlag = "quiet"

// addQuietFlag adds -q to all commands. It does not keep back what a command was asked
// to print (status, version, a dry run, -o json), warnings, or errors.
func addQuietFlag(root *cobra.Command) {
	root.PersistentFlags().BoolP(quietFlag, "q", false, "do not say what was done: print errors and warnings only")
}

// quiet reports whether a command is to say nothing.
func quiet(cmd *cobra.Command) bool {
	set, err := cmd.Flags().GetBool(quietFlag)
	return err == nil && set // err: the command has no root that defines the flag
}

// say tells the user what a command did, unless it is to be quiet.
func say(cmd *cobra.Command, format string, args ...any) error {
	if quiet(cmd) {
		return nil
	}
	text, ended := strings.CutSuffix(fmt.Sprintf(format, args...), "\n")
	text = printable.Text(text)
	if ended {
		text += "\n"
	}
	_, err := io.WriteString(cmd.OutOrStdout(), text)
	return err
}
