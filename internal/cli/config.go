// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

// newConfigCmd makes `netfreeze config`.
func newConfigCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or show the configuration",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newConfigCheckCmd(), newConfigShowCmd())
	return cmd
}

func newConfigCheckCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration file",
		Long: `Check a configuration file, by default ` + config.Path + `, and print what holds with it.

All that is wrong is reported, with file and line, and the exit code is 1. A
file that others than root can write is wrong, too.`,
		Example: `  netfreeze config check
  netfreeze config check ./netfreeze.toml -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := config.Path
			if len(args) > 0 {
				path = args[0]
				// A file that is named must be there; only the default need not.
				if _, err := os.Stat(path); err != nil {
					return fmt.Errorf("check configuration: %w", err)
				}
			}
			return checkConfig(cmd.OutOrStdout(), path, output)
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

func newConfigShowCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the configuration with all defaults filled in",
		Long: `Print the configuration with all defaults filled in, in the syntax of ` + config.Path + `
or as JSON.`,
		Example: `  netfreeze config show
  netfreeze config show -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			c, err := config.Load(config.Path)
			if err != nil {
				return err
			}
			if output == outputJSON {
				return encodeJSON(cmd.OutOrStdout(), viewConfig(c))
			}
			_, err = io.WriteString(cmd.OutOrStdout(), c.TOML())
			return err
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

// checkConfig prints OK and what holds, or returns what is wrong. As JSON it
// prints both cases alike, and still returns the error for the exit code.
func checkConfig(w io.Writer, path, output string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	c, err := config.Load(path)
	if output == outputJSON {
		result := struct {
			File     string          `json:"file"`
			OK       bool            `json:"ok"`
			Problems config.Problems `json:"problems,omitempty"`
			Config   *configView     `json:"config,omitempty"`
		}{File: path, OK: err == nil}
		if err == nil {
			result.Config = viewConfig(c)
		} else if !errors.As(err, &result.Problems) {
			result.Problems = config.Problems{{File: path, Text: err.Error()}}
		}
		return errors.Join(encodeJSON(w, result), err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s: OK\n\n%s", path, c.TOML())
	return err
}

// configView is the configuration as JSON, with the keys of the file.
type configView struct {
	Backend          backend.Kind          `json:"backend"`
	Policy           config.Policy         `json:"policy"`
	TTL              string                `json:"ttl"`
	Drain            string                `json:"drain"`
	Quiet            config.Quiet          `json:"quiet"`
	QuietTime        string                `json:"quiet-time"`
	RestoreFailure   config.RestoreFailure `json:"restore-failure"`
	Resume           config.Resume         `json:"resume"`
	NudgePackets     int                   `json:"nudge-packets"`
	AnnounceCount    int                   `json:"announce-count"`
	AnnounceInterval string                `json:"announce-interval"`
	HoldThenKill     string                `json:"hold-then-kill"`
	HoldSigterm      config.HoldSigterm    `json:"hold-sigterm"`
	Restart          config.Restart        `json:"restart"`
	Answer           config.Answer         `json:"answer"`
	Annotations      bool                  `json:"annotations"`
	Log              logView               `json:"log"`
	Containers       []ruleView            `json:"container"`
}

type logView struct {
	Level string `json:"level"`
	File  string `json:"file"`
}

type ruleView struct {
	ID        string        `json:"id,omitempty"`
	Name      string        `json:"name,omitempty"`
	Pod       string        `json:"pod,omitempty"`
	Backend   backend.Kind  `json:"backend,omitempty"`
	Policy    config.Policy `json:"policy,omitempty"`
	TTL       string        `json:"ttl,omitempty"`
	Drain     string        `json:"drain,omitempty"`
	Quiet     config.Quiet  `json:"quiet,omitempty"`
	QuietTime string        `json:"quiet-time,omitempty"`
	Answer    config.Answer `json:"answer,omitempty"`
	Line      int           `json:"line"`
}

func viewConfig(c *config.Config) *configView {
	v := &configView{
		Backend:          c.Backend,
		Policy:           c.Policy,
		TTL:              config.FormatDuration(c.TTL),
		Drain:            config.FormatDuration(c.Drain),
		Quiet:            c.Quiet,
		QuietTime:        config.FormatDuration(c.QuietTime),
		RestoreFailure:   c.RestoreFailure,
		Resume:           c.Resume,
		NudgePackets:     c.NudgePackets,
		AnnounceCount:    c.AnnounceCount,
		AnnounceInterval: config.FormatDuration(c.AnnounceInterval),
		HoldThenKill:     config.FormatDuration(c.HoldThenKill),
		HoldSigterm:      c.HoldSigterm,
		Restart:          c.Restart,
		Answer:           c.Answer,
		Annotations:      c.Annotations,
		Log:              logView(c.Log),
		Containers:       []ruleView{},
	}
	for _, r := range c.Containers {
		rv := ruleView{ID: r.ID, Name: r.Name, Pod: r.Pod, Backend: r.Backend, Policy: r.Policy, Quiet: r.Quiet, Answer: r.Answer, Line: r.Line}
		if r.TTL != nil {
			rv.TTL = config.FormatDuration(*r.TTL)
		}
		if r.Drain != nil {
			rv.Drain = config.FormatDuration(*r.Drain)
		}
		if r.QuietTime != nil {
			rv.QuietTime = config.FormatDuration(*r.QuietTime)
		}
		v.Containers = append(v.Containers, rv)
	}
	return v
}

// The values of the flag --output.
const (
	outputText = "text"
	outputJSON = "json"
)

// addOutputFlag adds -o to a command.
func addOutputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", outputText, "how to print: text or json")
}

// checkOutput refuses other values of --output.
func checkOutput(output string) error {
	if output != outputText && output != outputJSON {
		return code.New(code.Usage, fmt.Sprintf("--output %q: not one of %s, %s", output, outputText, outputJSON))
	}
	return nil
}

// encodeJSON prints a value for machines.
func encodeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
