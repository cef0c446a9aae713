// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
	"github.com/criu-netfreeze/criu-netfreeze/internal/report"
)

func newLogCmd() *cobra.Command {
	var output string
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "log",
		Short: "List the dumps and restores of this node, the newest last",
		Long: `List what was dumped and restored on this node, the newest last: when, what became
of it, how long the network was frozen, and when its connections carried bytes
again. "netfreeze report ID" tells all about one of them.

Reports are kept in ` + journal.Dir + `, the newest 500.`,
		Example: `  netfreeze log
  netfreeze log --since 24h -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(checkOutput(output), needRoot()); err != nil {
				return err
			}
			all, err := journal.All()
			if since > 0 {
				all = slices.DeleteFunc(all, func(r *journal.Report) bool { return time.Since(r.Began) > since })
			}
			if output == outputJSON {
				if all == nil {
					all = []*journal.Report{} // an empty list, not null
				}
				return errors.Join(encodeJSON(cmd.OutOrStdout(), all), err)
			}
			return errors.Join(writeLog(cmd.OutOrStdout(), all), err)
		},
	}
	addOutputFlag(cmd, &output)
	cmd.Flags().DurationVar(&since, "since", 0, "only what began within this time, for example 24h (default: all)")
	return cmd
}

func writeLog(w io.Writer, all []*journal.Report) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "nothing was dumped or restored")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "ID\tBEGAN\tWHAT\tCONTAINER\tOUTCOME\tFROZEN\tCONNECTIONS\tFIRST BYTES")
	for _, r := range all {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", printable.Text(r.ID), r.Began.Local().Format("2006-01-02 15:04:05"), r.Op,
			dash(short(printable.Text(cmp.Or(r.Container.Name, r.Container.ID)))), cmp.Or(r.Outcome, "-"), report.FrozenTime(r), r.Connections, firstBytes(r))
	}
	return t.Flush()
}

// firstBytes says when the connections of a restore carried bytes again.
func firstBytes(r *journal.Report) string {
	if len(r.Flows) == 0 {
		return "-"
	}
	first, last, carried := r.FirstByte()
	switch carried {
	case 0:
		return "none seen"
	case 1:
		return fmt.Sprintf("1 after %v", first.Round(100*time.Microsecond))
	}
	return fmt.Sprintf("%d after %v to %v", carried, first.Round(100*time.Microsecond), last.Round(100*time.Microsecond))
}
