// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/install"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// criusLock, as --network-lock, leaves CRIU's lock as it is.
const criusLock = "criu"

// newInstallCmd makes `netfreeze install`.
func newInstallCmd() *cobra.Command {
	var (
		o              install.Options
		policy, output string
		dryRun         bool
	)
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Add the hook to CRIU's configuration files",
		Long: `Add the hook to the configuration files that CRIU reads when a runtime calls
it: /etc/criu/runc.conf, crun.conf and default.conf. The lines stand between two
markers at the top of the file, since CRIU runs the script listed first last;
all else stays as it is, byte for byte, until netfreeze uninstall takes them out.
A second install replaces the lines of the first one.

runc reads runc.conf. crun reads crun.conf and, where that is missing, runc.conf;
a missing crun.conf is therefore not made where there is a runc.conf. The plain
criu command reads default.conf, and so does every CRIU that a runtime starts.`,
		Example: `  netfreeze install --dry-run
  netfreeze install --stop-after-dump kill
  netfreeze install --runtime default --hook /opt/netfreeze/netfreeze-hook`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if policy != "" {
				p, err := config.ParsePolicy(policy)
				if err != nil {
					return code.Wrap(code.Usage, fmt.Errorf("--stop-after-dump: %w", err))
				}
				o.StopAfterDump = p
			}
			if o.NetworkLock == criusLock {
				o.NetworkLock = ""
			}
			if o.Hook == "" {
				o.Hook = install.DefaultHook(o.Root)
			}
			p, err := install.PlanInstall(o)
			if err != nil {
				return fmt.Errorf("install: %w", err)
			}
			return carryOut(cmd, p, dryRun, output)
		},
	}
	f := cmd.Flags()
	addPlanFlags(cmd, &o, &dryRun, &output, install.DefaultRuntimes())
	f.StringVar(&policy, "stop-after-dump", "", "the policy to write into "+config.Path+": hold, run, isolate or kill")
	f.StringVar(&o.NetworkLock, "network-lock", "skip", "CRIU's own lock: "+strings.Join(install.NetworkLocks(), ", ")+", or "+criusLock+" for no line, so that CRIU or its caller chooses;\nour freeze needs none beside it")
	f.StringVar(&o.ManageCgroups, "manage-cgroups", "", "how CRIU treats cgroups, such as ignore (default: no line)")
	f.StringVar(&o.LogFile, "log-file", "", "an absolute path for CRIU's log, overwritten by each run; callers that keep\nor pack CRIU's log, such as containerd, do not find it then (default: no line)")
	f.BoolVar(&o.Split, "split", false, "list pre-dump, post-dump, pre-restore and post-resume instead of netfreeze-hook; slower")
	f.StringVar(&o.Hook, "hook", "", "the path of netfreeze-hook (default: the one installed with this command)")
	return cmd
}

// newUninstallCmd makes `netfreeze uninstall`.
func newUninstallCmd() *cobra.Command {
	var (
		o             install.Options
		dryRun, force bool
		output        string
	)
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the hook out of CRIU's configuration files",
		Long: `Take out of CRIU's configuration files what netfreeze install added; what is left
is the former file, byte for byte. A file that install made is removed. With the
last of them goes the policy that install wrote into ` + config.Path + `,
unless it was changed since.

While something is frozen or held it is refused, with --dry-run too: without the
hook no restore would thaw it, and without this program nobody could.`,
		Example: `  netfreeze uninstall --dry-run
  netfreeze uninstall --runtime default`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if o.Root == "" && !force {
				if err := nothingInForce(); err != nil {
					return err
				}
			}
			p, err := install.PlanUninstall(o)
			if err != nil {
				return fmt.Errorf("uninstall: %w", err)
			}
			return carryOut(cmd, p, dryRun, output)
		},
	}
	addPlanFlags(cmd, &o, &dryRun, &output, install.Runtimes())
	cmd.Flags().BoolVar(&force, "force", false, "uninstall although something is frozen or held")
	return cmd
}

// nothingInForce is an error if something on this machine still needs the hook or this
// program to end it.
func nothingInForce() error {
	_, err := keeper().List() // which clears away what is over
	all, err2 := record.All()
	errs := []error{err2}
	if len(all) > 0 {
		errs = append(errs, err)
	}
	for _, r := range all {
		if r.Holds() || r.Waits() || r.Undoable() {
			errs = append(errs, code.New(code.AlreadyHeld, fmt.Sprintf("%s: end that first, with netfreeze thaw %s", r.DescribeHold(), r.ThawTarget())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w\nnothing was changed (--force uninstalls all the same)", err)
	}
	return nil
}

func addPlanFlags(cmd *cobra.Command, o *install.Options, dryRun *bool, output *string, runtimes []string) {
	f := cmd.Flags()
	f.StringSliceVar(&o.Runtimes, "runtime", runtimes, "whose files to edit, some of "+strings.Join(install.Runtimes(), ","))
	f.StringVar(&o.Root, "root", "", "the directory in which all paths are looked up (default /)")
	f.BoolVar(dryRun, "dry-run", false, "show what would change, and change nothing")
	addOutputFlag(cmd, output)
}

// carryOut prints a plan and, unless it is a dry run, does what it says.
func carryOut(cmd *cobra.Command, p *install.Plan, dryRun bool, output string) error {
	if !dryRun {
		if err := p.Apply(); err != nil {
			return err
		}
	}
	if output == outputJSON {
		return encodeJSON(cmd.OutOrStdout(), viewPlan(p, dryRun))
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
	}
	if quiet(cmd) && !dryRun {
		return nil
	}
	return printPlan(cmd.OutOrStdout(), p, dryRun)
}

func printPlan(w io.Writer, p *install.Plan, dryRun bool) error {
	var b strings.Builder
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	unchanged := true
	for _, c := range p.Changes {
		diff := c.Diff()
		switch {
		case diff == "":
			continue
		case dryRun:
			b.WriteString(diff)
		default:
			fmt.Fprintf(&b, "%s: %s\n", c.Path, c.Action())
		}
		unchanged = false
	}
	if unchanged {
		b.WriteString("nothing to change\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// planView is a plan as JSON.
type planView struct {
	DryRun   bool              `json:"dryRun"`
	Changes  []changeView      `json:"changes"`
	Warnings []install.Warning `json:"warnings"`
	Notes    []string          `json:"notes"`
}

type changeView struct {
	Path   string `json:"path"`
	Action string `json:"action"`
	Diff   string `json:"diff,omitempty"`
}

func viewPlan(p *install.Plan, dryRun bool) planView {
	v := planView{
		DryRun:   dryRun,
		Changes:  []changeView{},
		Warnings: append([]install.Warning{}, p.Warnings...),
		Notes:    append([]string{}, p.Notes...),
	}
	for _, c := range p.Changes {
		if diff := c.Diff(); diff != "" {
			v.Changes = append(v.Changes, changeView{Path: c.Path, Action: c.Action(), Diff: diff})
		}
	}
	return v
}
