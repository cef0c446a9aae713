// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
)

// newPolicyCmd makes netfreeze policy.
func newPolicyCmd() *cobra.Command {
	var (
		like       identity.Container
		annotation string
		output     string
	)
	cmd := &cobra.Command{
		Use:   "policy [TARGET | --id ID --name NAME --pod POD]",
		Short: "Show which policy applies to a container, and why",
		Long: `Show which policy, and which other settings, apply to a running container at its
next dump, and what chose the policy. TARGET is a process id in the container, or
the beginning of its id. Without one, the options say what the container would be.

The first of these that says something counts:

  1. the annotation ` + config.PolicyAnnotation + ` of the container or its
     pod, where netfreeze.toml has annotations = true;
  2. the first [[container]] rule of netfreeze.toml that matches;
  3. the general settings of netfreeze.toml;
  4. the defaults.`,
		Example: `  netfreeze policy 3f2a91
  netfreeze policy --pod shop/db-0 --name db -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			described := like.ID+like.Name+like.Pod+annotation != ""
			if described == (len(args) > 0) {
				return code.New(code.Usage, "name a running container, or say by --id, --name, --pod and --annotation what it would be")
			}
			if annotation != "" {
				like.Annotations = map[string]string{config.PolicyAnnotation: annotation}
			}
			if len(args) > 0 {
				if err := needRoot(); err != nil {
					return err
				}
				c, err := container.Running(args[0])
				if err != nil {
					return err
				}
				like = c.Container
			}
			return showPolicy(cmd.OutOrStdout(), like, output)
		},
	}
	f := cmd.Flags()
	f.StringVar(&like.ID, "id", "", "id that a container would have")
	f.StringVar(&like.Name, "name", "", "its name")
	f.StringVar(&like.Pod, "pod", "", "its pod, NAMESPACE/NAME")
	f.StringVar(&annotation, "annotation", "", "value of its annotation "+config.PolicyAnnotation)
	addOutputFlag(cmd, &output)
	return cmd
}

// applied is what applies to a container, as JSON.
type applied struct {
	Container identity.Container `json:"container"`
	Policy    config.Policy      `json:"policy"`
	Why       string             `json:"why"`
	Rule      string             `json:"rule,omitempty"`
	Settings  []setting          `json:"settings"`
}

type setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func showPolicy(w io.Writer, c identity.Container, output string) error {
	cfg, err := config.Load(config.Path)
	if err != nil {
		return err
	}
	set, err := cfg.For(c)
	if err != nil {
		return err
	}
	a := applied{Container: c, Policy: set.Policy, Why: set.Why, Rule: set.Rule, Settings: []setting{
		{"backend", string(set.Backend)},
		{"ttl", config.FormatDuration(set.TTL)},
		{"drain", config.FormatDuration(set.Drain)},
		{"quiet", string(set.Quiet)},
		{"quiet-time", config.FormatDuration(set.QuietTime)},
		{"hold-then-kill", config.FormatDuration(set.HoldThenKill)},
		{"hold-sigterm", string(set.HoldSigterm)},
		{"restart", string(set.Restart)},
		{"answer", string(set.Answer)},
		{"restore-failure", string(set.RestoreFailure)},
		{"resume", string(set.Resume)},
	}}
	if output == outputJSON {
		return encodeJSON(w, a)
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	line := func(name, value string) { _, _ = fmt.Fprintf(tw, "%s\t%s\n", name, printable.Text(value)) }
	for _, known := range []setting{{"container", c.ID}, {"name", c.Name}, {"pod", c.Pod}} {
		line(known.Name, dash(known.Value))
	}
	line("policy", fmt.Sprintf("%s, by %s", a.Policy, a.Why))
	if a.Rule != "" && !strings.HasPrefix(a.Why, a.Rule) {
		line("rule", a.Rule)
	}
	for _, s := range a.Settings {
		line(s.Name, s.Value)
	}
	return tw.Flush()
}
