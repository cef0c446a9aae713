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
	"github.com/criu-netfreeze/criu-netfreeze/internal/expect"
)

// expectOptions are those of netfreeze expect.
type expectOptions struct {
	pods, containers, addresses []string
	number                      int
	duration                    time.Duration
	list, cancel                bool
	output                      string
}

func newExpectCmd() *cobra.Command {
	var o expectOptions
	cmd := &cobra.Command{
		Use:   "expect [--pod NAMESPACE/NAME] [--container ID] [--address IP] --for D",
		Short: "Announce a restore: freeze its network namespace at its birth",
		Long: `Announce that a pod, a container or an address is about to be restored on this
node. Orchestrators give the new namespace its address seconds before CRIU
starts, and until CRIU has rebuilt the sockets the kernel would answer every
peer with a reset. So the CNI plugin netfreeze-cni and the OCI hook netfreeze-oci
freeze the namespace that is expected when it is set up, for the time to live of
netfreeze.toml; the restore adopts that freeze. Without one of the two an
expectation has no effect.

The containers of a pod share its namespace and are restored one after the other:
with --containers N the pod stays frozen until N of them are there. Otherwise the
first one's thaw would have the kernel reset the peers of the others.

An expectation ends by itself after --for, however often it was met: a pod may
be set up more than once until its restore succeeds. The same one again counts
the time anew.`,
		Example: `  netfreeze expect --pod shop/db-0 --for 2m
  netfreeze expect --address 10.244.1.7 --address fd00::7 --for 30s
  netfreeze expect --pod shop/web-0 --containers 3 --for 5m
  netfreeze expect --list -o json
  netfreeze expect --pod shop/db-0 --cancel`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(o.check(), needRoot()); err != nil {
				return err
			}
			if o.list {
				return o.show(cmd.OutOrStdout())
			}
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.pods, "pod", nil, "NAMESPACE/NAME of a pod (may be given again)")
	f.StringArrayVar(&o.containers, "container", nil, "id of a container, or its first 12 characters or more (may be given again)")
	f.StringArrayVar(&o.addresses, "address", nil, "IPv4 or IPv6 address (may be given again)")
	f.IntVar(&o.number, "containers", 1, fmt.Sprintf("how many containers are restored into it, 1 to %d", maxContainers))
	f.DurationVar(&o.duration, "for", 0, fmt.Sprintf("how long to expect it, %v to %v", config.MinTTL, config.MaxTTL))
	f.BoolVar(&o.list, "list", false, "show what is expected, and what was met")
	f.BoolVar(&o.cancel, "cancel", false, "end the expectation")
	addOutputFlag(cmd, &o.output)
	return cmd
}

// maxContainers is more than any pod has.
const maxContainers = 1000

// check refuses what contradicts itself.
func (o *expectOptions) check() error {
	named := len(o.pods)+len(o.containers)+len(o.addresses) > 0
	switch {
	case o.list && (named || o.cancel || o.duration != 0):
		return code.New(code.Usage, "--list stands alone, but for -o")
	case o.list:
		return checkOutput(o.output)
	case !named:
		return code.New(code.Usage, "say what is expected: --pod, --container or --address (or --list)")
	case o.number < 1 || o.number > maxContainers:
		return code.New(code.Usage, fmt.Sprintf("--containers %d is out of range: 1 to %d", o.number, maxContainers))
	case o.cancel && o.duration != 0:
		return code.New(code.Usage, "--cancel and --for exclude each other")
	case !o.cancel && (o.duration < config.MinTTL || o.duration > config.MaxTTL):
		return code.New(code.Usage, fmt.Sprintf("--for %v is out of range: %v to %v", o.duration, config.MinTTL, config.MaxTTL))
	}
	return nil
}

// expectations are those that the options name.
func (o *expectOptions) expectations() ([]expect.Expectation, error) {
	var all []expect.Expectation
	var errs []error
	add := func(e expect.Expectation, err error) {
		all, errs = append(all, e), append(errs, err)
	}
	for _, p := range o.pods {
		add(expect.Pod(p))
	}
	for _, c := range o.containers {
		add(expect.Container(c))
	}
	for _, a := range o.addresses {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			errs = append(errs, code.New(code.Usage, fmt.Sprintf("%q is not an address", a)))
			continue
		}
		add(expect.Address(addr))
	}
	return all, errors.Join(errs...)
}

// run records or cancels them.
func (o *expectOptions) run(cmd *cobra.Command) error {
	all, err := o.expectations()
	if err != nil {
		return err
	}
	for _, e := range all {
		if o.cancel {
			was, err := e.Cancel()
			if err != nil {
				return err
			}
			if err := say(cmd, "%s %s\n", &e, map[bool]string{true: "is no longer expected", false: "was not expected"}[was]); err != nil {
				return err
			}
			continue
		}
		if o.number > 1 {
			e.Containers = o.number
		}
		if err := e.Expect(o.duration); err != nil {
			return err
		}
		if err := say(cmd, "%s is expected until %s\n", &e, time.Now().Add(o.duration).Format("15:04:05")); err != nil {
			return err
		}
	}
	return nil
}

// show lists what is in force.
func (o *expectOptions) show(w io.Writer) error {
	all, err := expect.Expectations()
	if o.output == outputJSON {
		if all == nil {
			all = []expect.Expectation{} // an empty list, not null
		}
		return errors.Join(err, encodeJSON(w, all))
	}
	unmet, err2 := expect.Unmet()
	err = errors.Join(err, err2)
	if len(all) == 0 && len(unmet) == 0 {
		_, werr := fmt.Fprintln(w, "nothing is expected")
		return errors.Join(err, werr)
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "EXPECTED\tSINCE\tLEFT\tMET\tBY")
	for i := range all {
		e, met := &all[i], ""
		if !e.Matched.IsZero() {
			met = e.Matched.Local().Format("15:04:05")
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", e, e.Since.Local().Format("15:04:05"),
			time.Until(e.Until).Round(time.Second), dash(met), dash(e.By))
	}
	for i := range unmet {
		_, _ = fmt.Fprintf(tw, "%s\t%s\tended\tnever\t-\n", &unmet[i], unmet[i].Since.Local().Format("15:04:05"))
	}
	if err := errors.Join(err, tw.Flush()); err != nil || len(unmet) == 0 {
		return err
	}
	_, werr := fmt.Fprintln(w, unmetNote)
	return werr
}

// unmetNote says what may have gone wrong.
const unmetNote = "Nothing of what was expected and never met was set up while the CNI plugin or the OCI hook could see it. " +
	"An address is seen only if the runtime asks for it (CNI's \"ips\", which CRI-O does not pass) or if the plugin stands last; " +
	"expect the pod or the container by name instead, and see that the plugin or the hook is installed. --cancel forgets one."
