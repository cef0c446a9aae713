// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/inspect"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
)

// newInspectCmd makes netfreeze inspect.
func newInspectCmd() *cobra.Command {
	var output, target string
	cmd := &cobra.Command{
		Use:   "inspect PATH [--target NETNS]",
		Short: "Show what is in a checkpoint, and whether it can be restored in a namespace",
		Long: `Show who was dumped, each TCP connection with its queues and options, the
listening sockets, and what a restore needs. PATH is

  - a directory of CRIU's images, or one that has such directories in it;
  - a checkpoint archive of podman, CRI-O, containerd or docker (.tar, .tar.gz,
    .tar.zst);
  - a checkpoint image for a registry: an OCI layout, or an archive of one, or of
    docker's kind.

Nothing is unpacked. With --target the checkpoint is compared with a network
namespace: which addresses are missing, which connections are still open or wait in
a queue, which ports are taken. Then the exit status is 0 if it could be restored
there now, and 1 if not. The namespace is not changed.

In this command NETNS is a TARGET: ` + strings.TrimPrefix(targetHelp, "TARGET is "),
		Example: `  netfreeze inspect /var/lib/kubelet/checkpoints/checkpoint-db-0_shop-db.tar
  netfreeze inspect web.tar.gz -o json
  netfreeze inspect /srv/img --target /run/netns/web2`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			report, err := inspect.Read(args[0])
			if err != nil {
				return err
			}
			var missing error
			if target != "" {
				if missing, err = compare(report, target); err != nil {
					return err
				}
			}
			if output == outputJSON {
				return errors.Join(encodeJSON(cmd.OutOrStdout(), report), missing)
			}
			return errors.Join(writeReport(cmd.OutOrStdout(), report), missing)
		},
	}
	cmd.Flags().StringVar(&target, "target", "", "network namespace `NETNS`: could it be restored there now?")
	addOutputFlag(cmd, &output)
	return cmd
}

// compare compares every checkpoint with the namespace that a target names. missing says
// that one cannot be restored there.
func compare(report *inspect.Report, target string) (missing, err error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	ns, err := openNetNS(target)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	for _, c := range report.Checkpoints {
		if err := c.Check(ns); err != nil {
			return nil, err
		}
		missing = errors.Join(missing, c.Target.Err())
	}
	return missing, nil
}

// writeReport prints a report for people.
func writeReport(w io.Writer, r *inspect.Report) error {
	for i, c := range r.Checkpoints {
		if i > 0 {
			_, _ = fmt.Fprintln(w)
		}
		if err := writeCheckpoint(w, r, c); err != nil {
			return err
		}
	}
	return nil
}

func writeCheckpoint(w io.Writer, r *inspect.Report, c *inspect.Checkpoint) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	// Tabs and the like in what is printed are escaped.
	row := func(cells ...string) {
		for i := range cells {
			cells[i] = printable.Text(cells[i])
		}
		_, _ = fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	known := func(name, value string) {
		if value != "" {
			row(name, value)
		}
	}
	where := r.Kind
	if c.Where != "" {
		where += ", images in " + c.Where
	}
	row("checkpoint", fmt.Sprintf("%s (%s)", r.Path, where))
	o := c.Origin
	known("container", strings.TrimSpace(o.Container.Name+" "+o.Container.ID))
	known("pod", o.Container.Pod)
	known("image", o.Image)
	known("engine", o.Engine)
	known("runtime", o.Runtime)
	known("dumped", dumpedAt(o))
	known("tasks", tasks(c.Tasks))
	for _, i := range o.Interfaces {
		known("interface", strings.Join(append([]string{i.Name, i.MAC}, i.Addresses...), " "))
	}
	for _, p := range c.Problems {
		row("problem", p)
	}

	_, _ = fmt.Fprintf(tw, "\nTCP connections: %d\n", len(c.Connections))
	if len(c.Connections) > 0 {
		row("STATE", "LOCAL", "REMOTE", "RECV-Q", "SEND-Q", "UNSENT", "OPTIONS")
	}
	for _, conn := range c.Connections {
		if conn.Problem != "" {
			row(conn.State, conn.Local.String(), conn.Remote.String(), "?", "?", "?", conn.Problem)
			continue
		}
		row(conn.State, conn.Local.String(), conn.Remote.String(), fmt.Sprint(conn.ReceiveQueue), fmt.Sprint(conn.SendQueue), fmt.Sprint(conn.Unsent), options(conn))
	}

	_, _ = fmt.Fprintf(tw, "\nListening sockets: %d\n", len(c.Listening))
	for _, l := range c.Listening {
		row(append([]string{l.Protocol, l.Local.String()}, backlog(l)...)...)
	}

	_, _ = fmt.Fprintln(tw, "\nA restore needs")
	n := c.Needs
	row("network namespace", namespace(n))
	row("addresses", dash(netns.List(n.Addresses)))
	known("interfaces", strings.Join(n.Interfaces, ", "))
	row("free ports", dash(strings.Join(n.Ports, ", ")))
	row("tcp-established", map[bool]string{true: "yes", false: "no: there is no connection"}[n.TCPEstablished])
	writeTarget(tw, c.Target)
	return tw.Flush()
}

// writeTarget prints what was found in a namespace, a line each.
func writeTarget(w io.Writer, t *inspect.Target) {
	if t == nil {
		return
	}
	verdict := "it could be restored there now"
	if !t.Restorable {
		verdict = "it cannot be restored there now"
	}
	_, _ = fmt.Fprintf(w, "\nTarget %s: %s\n", printable.Text(t.NetNS), verdict)
	for _, f := range t.Findings {
		kind := "note"
		if f.Blocks {
			kind = "missing"
		}
		line := fmt.Sprintf("%s: %s; %s", kind, f.Text, f.Remedy)
		if f.Code != "" {
			line += " [" + f.Code + "]"
		}
		_, _ = fmt.Fprintln(w, printable.Text(line))
	}
}

func dumpedAt(o inspect.Origin) string {
	var words []string
	if !o.Time.IsZero() {
		words = append(words, o.Time.Local().Format("2006-01-02 15:04:05 MST"))
	}
	if o.CRIUVersion != "" {
		words = append(words, "by CRIU "+o.CRIUVersion)
	}
	if o.FrozenUS != 0 {
		words = append(words, fmt.Sprintf("tasks stopped for %s", time.Duration(o.FrozenUS)*time.Microsecond))
	}
	return strings.Join(words, ", ")
}

// tasks names the first processes.
func tasks(all []inspect.Task) string {
	const most = 8
	names := make([]string, 0, most+1)
	for i, t := range all {
		if i == most {
			names = append(names, "…")
			break
		}
		names = append(names, strings.TrimSpace(fmt.Sprintf("%d %s", t.PID, t.Comm)))
	}
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("%d: %s", len(all), strings.Join(names, ", "))
}

func options(c inspect.Connection) string {
	words := []string{fmt.Sprintf("mss %d", c.MSS)}
	for _, o := range c.Options {
		if o == "wscale" {
			o = fmt.Sprintf("wscale %d,%d", c.SendScale, c.ReceiveScale)
		}
		words = append(words, o)
	}
	if c.Device != "" {
		words = append(words, "dev "+c.Device)
	}
	return strings.Join(words, " ")
}

func backlog(l inspect.Listener) (cells []string) {
	if l.Backlog != 0 {
		cells = append(cells, fmt.Sprintf("backlog %d", l.Backlog))
	}
	if l.Device != "" {
		cells = append(cells, "dev "+l.Device)
	}
	return cells
}

func namespace(n inspect.Needs) string {
	switch n.NetNS {
	case "external":
		return fmt.Sprintf("external: CRIU's caller hands over one that exists, by the key %s", n.Key)
	case "dumped":
		return "dumped: CRIU makes a new one from the images"
	}
	return "shared: CRIU's own, where the tree was, too"
}
