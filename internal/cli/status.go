// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/expect"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
)

func newStatusCmd() *cobra.Command {
	var output string
	var asMetrics bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is frozen, why, and for how much longer",
		Long: `Show every freeze on this node and every transaction under way: container, pod,
network namespace, scope, policy, since when, and the time left until the
kernel ends it by itself. Addresses whose resets are dropped (netfreeze guard)
are shown too.

--metrics prints the same, and figures of the last dumps and restores, as Prometheus'
text for the textfile collector of node_exporter.`,
		Example: `  netfreeze status
  netfreeze status -o json
  netfreeze status --metrics >/var/lib/prometheus/node-exporter/netfreeze.prom.new`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(checkOutput(output), needRoot()); err != nil {
				return err
			}
			list, err := keeper().List()
			unmet, err2 := unmetStatus()
			list, err = append(list, unmet...), errors.Join(err, err2)
			if asMetrics {
				reports, err2 := journal.All()
				return errors.Join(err, err2, writeMetrics(cmd.OutOrStdout(), list, reports))
			}
			if output == outputJSON {
				if list == nil {
					list = []freeze.Status{} // an empty list, not null
				}
				return errors.Join(err, encodeJSON(cmd.OutOrStdout(), list))
			}
			return errors.Join(err, writeTable(cmd.OutOrStdout(), list))
		},
	}
	addOutputFlag(cmd, &output)
	cmd.Flags().BoolVar(&asMetrics, "metrics", false, "print metrics for Prometheus")
	cmd.MarkFlagsMutuallyExclusive("output", "metrics")
	return cmd
}

// unmetStatus lists what was expected, and never came.
func unmetStatus() (list []freeze.Status, err error) {
	all, err := expect.Unmet()
	for _, e := range all {
		list = append(list, freeze.Status{
			ID: "expectation", Container: e.Container, Pod: e.Pod, Address: addressOf(e),
			State: "unmet", Since: e.Since, Note: unmetNote,
		})
	}
	return list, err
}

func addressOf(e expect.Expectation) string {
	if !e.Address.IsValid() {
		return ""
	}
	return e.Address.String()
}

func writeTable(w io.Writer, list []freeze.Status) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "nothing is frozen")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "CONTAINER\tPOD\tPID\tNETNS\tSCOPE\tPOLICY\tSTATE\tBACKEND\tSINCE\tLEFT")
	for _, s := range list {
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			dash(short(printable.Text(s.Container))), dash(printable.Text(s.Pod)), dash(number(s.PID)), dash(printable.Text(place(s))), dash(s.Scope), dash(s.Policy), s.State,
			dash(string(s.Backend)), since(s), dash(left(s)))
	}
	return tw.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func short(id string) string {
	const enough = 12
	if len(id) > enough {
		return id[:enough]
	}
	return id
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func place(s freeze.Status) string {
	if s.Address != "" {
		return s.Address
	}
	if s.Path != "" {
		return s.Path
	}
	return s.NetNS
}

func since(s freeze.Status) string {
	if s.Since.IsZero() {
		return dash("")
	}
	return s.Since.Local().Format("15:04:05")
}

func left(s freeze.Status) string {
	if !s.Frozen && s.LeftSeconds == 0 {
		return "not frozen"
	}
	return (time.Duration(s.LeftSeconds * float64(time.Second))).Round(time.Second).String()
}
