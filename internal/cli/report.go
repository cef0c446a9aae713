// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/report"
)

const outputHTML = "html"

func newReportCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "report ID",
		Short: "Tell what happened in one dump or restore, and when",
		Long: `Tell what happened in one dump or restore: each of CRIU's actions and how long it
took, when the network was frozen and thawed, what was sent, what the log said,
and when each connection carried its first byte after the thaw (bytes of the peer
that came in, and bytes of ours that it acknowledged).

ID is that of netfreeze log, or a part of it; "last"; or the beginning of a
container's id, or its name, of which the newest report is shown.

Times are those of this node's clock; "after" counts from the first action. -o html
writes one page that needs nothing else, with a drawing.`,
		Example: `  netfreeze report last
  netfreeze report 3f2a91 -o html >report.html`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != outputText && output != outputJSON && output != outputHTML {
				return code.New(code.Usage, fmt.Sprintf("--output %q: not one of %s, %s, %s", output, outputText, outputJSON, outputHTML))
			}
			if err := needRoot(); err != nil {
				return err
			}
			r, err := journal.Find(args[0])
			if err != nil {
				return err
			}
			switch w := cmd.OutOrStdout(); output {
			case outputJSON:
				return errors.Join(encodeJSON(w, r))
			case outputHTML:
				return report.HTML(w, r)
			default:
				return report.Text(w, r)
			}
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", outputText, outputText+", "+outputJSON+" or "+outputHTML)
	return cmd
}
