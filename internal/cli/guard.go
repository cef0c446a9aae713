// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
)

// guardOptions are those of netfreeze guard.
type guardOptions struct {
	duration  time.Duration
	list, off bool
	output    string
}

func newGuardCmd() *cobra.Command {
	var o guardOptions
	cmd := &cobra.Command{
		Use:   "guard ADDRESS --for D",
		Short: "Drop the resets that come from an address while it moves",
		Long: `While a container moves, drop TCP resets that come from its address and pass
through this node: those for peers on the same bridge, for the node itself, and
for whoever is routed through it. It is for where the container's own namespace
cannot be frozen in time, because it gets its address from something that knows
no hook before that, such as podman's restore. (Interfaces of the macvlan and
ipvlan kinds pass no rule of the node's, so there it does nothing.)

The rule is set in the network namespace in which the command runs, the node's,
by nftables. It can match nothing but TCP segments with RST from that one
address, and the kernel ends it after --for. Once more counts the time anew.`,
		Example: `  netfreeze guard 10.88.0.7 --for 30s
  netfreeze guard --list
  netfreeze guard --off 10.88.0.7`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(o.check(args), needRoot()); err != nil {
				return err
			}
			if o.list {
				return o.show(cmd.OutOrStdout())
			}
			return o.run(cmd, args[0])
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.duration, "for", 0, fmt.Sprintf("how long, %v to %v", config.MinTTL, config.MaxTTL))
	f.BoolVar(&o.list, "list", false, "show what is guarded in this network namespace")
	f.BoolVar(&o.off, "off", false, "end the guard of the address")
	addOutputFlag(cmd, &o.output)
	return cmd
}

// check refuses what contradicts itself.
func (o *guardOptions) check(args []string) error {
	switch {
	case o.list && (len(args) > 0 || o.off || o.duration != 0):
		return code.New(code.Usage, "--list stands alone, but for -o")
	case o.list:
		return checkOutput(o.output)
	case len(args) == 0:
		return code.New(code.Usage, "name the address (or --list)")
	case o.off && o.duration != 0:
		return code.New(code.Usage, "--off and --for exclude each other")
	case !o.off && (o.duration < config.MinTTL || o.duration > config.MaxTTL):
		return code.New(code.Usage, fmt.Sprintf("--for %v is out of range: %v to %v", o.duration, config.MinTTL, config.MaxTTL))
	}
	return nil
}

func (o *guardOptions) run(cmd *cobra.Command, address string) error {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return code.New(code.Usage, fmt.Sprintf("%q is not an address", address))
	}
	if o.off {
		if err := freeze.Unguard(addr); err != nil {
			return err
		}
		return say(cmd, "%s is not guarded\n", addr)
	}
	if err := freeze.Guard(addr, o.duration); err != nil {
		return err
	}
	return say(cmd, "resets from %s are dropped until %s\n", addr, time.Now().Add(o.duration).Format("15:04:05"))
}

// guardLine is one guard in JSON.
type guardLine struct {
	Address     netip.Addr `json:"address"`
	LeftSeconds float64    `json:"left_seconds"`
}

func (o *guardOptions) show(w io.Writer) error {
	all, err := freeze.Guards()
	if err != nil {
		return err
	}
	if o.output == outputJSON {
		lines := []guardLine{} // an empty list, not null
		for _, g := range all {
			lines = append(lines, guardLine{g.Address, g.Left.Seconds()})
		}
		return encodeJSON(w, lines)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "nothing is guarded")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "ADDRESS\tLEFT")
	for _, g := range all {
		_, _ = fmt.Fprintf(tw, "%s\t%s\n", g.Address, g.Left.Round(time.Second))
	}
	return tw.Flush()
}
