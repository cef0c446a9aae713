// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

func newFreezeCmd() *cobra.Command {
	var ttl time.Duration
	var by string
	cmd := &cobra.Command{
		Use:   "freeze TARGET",
		Short: "Freeze a network namespace by hand",
		Long: `Freeze a network namespace: no packet leaves or enters until it is thawed, a
restore into it has adopted the freeze, or its time to live is over. Use it on
the namespace of a restore that comes later, before its address goes live.

` + targetHelp,
		Example: `  netfreeze freeze /run/netns/web --ttl 2m
  netfreeze freeze 4711`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needRoot(); err != nil {
				return err
			}
			cfg, err := config.Load(config.Path)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("ttl") {
				ttl = cfg.TTL
			}
			if ttl < config.MinTTL || ttl > config.MaxTTL {
				return code.New(code.Usage, fmt.Sprintf("--ttl %v is out of range: %v to %v", ttl, config.MinTTL, config.MaxTTL))
			}
			kind := cfg.Backend
			if by != "" {
				if kind, err = backend.Parse(by); err != nil {
					return err
				}
			}
			ns, err := openNetNS(args[0])
			if err != nil {
				return err
			}
			defer ns.Close()
			r, err := keeper().Manual(ns, record.Record{ID: fmt.Sprintf("manual-%d", ns.ID().Ino)},
				freeze.Options{Backend: kind, TTL: ttl, Sealed: true})
			if err != nil {
				return err
			}
			if r.Note != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", printable.Text(r.Note))
			}
			return say(cmd, "%s is frozen with %s until %s\n", ns, r.Backend, r.Ends().Format("15:04:05"))
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long at most, for example 90s (default: ttl of netfreeze.toml)")
	cmd.Flags().StringVar(&by, "backend", "", backend.Names()+" (default: that of netfreeze.toml)")
	return cmd
}

func newThawCmd() *cobra.Command {
	var criu bool
	cmd := &cobra.Command{
		Use:   "thaw TARGET",
		Short: "Undo a hold or a freeze: the application goes on where it stood",
		Long: `Undo a hold, an isolation, or a freeze, whatever made it: sockets leave repair
mode, the rules go, stopped tasks run on, in this order. Not a byte is lost.
It also clears up what a killed hook has left behind, and, if asked to, the
network lock of CRIU's own that a killed CRIU has left in a namespace.

` + targetHelp,
		Example: `  netfreeze thaw 3f2a91
  netfreeze thaw /run/netns/web
  netfreeze thaw --criu-leftovers /run/netns/web`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needRoot(); err != nil {
				return err
			}
			if criu {
				return removeLeftovers(cmd, args[0])
			}
			ended := waiting(cmd, "%s to go on", args[0])
			found, err := records(args[0])
			if err == nil && len(found) > 0 {
				err = keeper().Thaw(nudgePackets(), found...)
			}
			ended()
			if err != nil {
				return err
			}
			if len(found) > 0 {
				for _, r := range found {
					events := []journal.Event{{Kind: journal.Thawed}}
					if r.Phase == record.Held || r.Phase == record.Isolated {
						events = append(events, journal.Event{Kind: journal.Outcome, Name: journal.WentOn})
					}
					note(cmd, r.ID, "thawed by netfreeze thaw", events...)
					if err := say(cmd, "%s is thawed\n", r.Describe()); err != nil {
						return err
					}
				}
				return nil
			}
			// Rules without a record: they came out of images, or the state directory was lost.
			ns, err := openNetNS(args[0])
			if err != nil {
				return err
			}
			defer ns.Close()
			done, err := keeper().ThawUnrecorded(ns)
			if err != nil {
				return err
			}
			if err := forgetDamaged(ns.ID()); err != nil {
				return err
			}
			if done == (freeze.Unrecorded{}) {
				return say(cmd, "%s was not frozen\n", ns)
			}
			return say(cmd, "%s is thawed; no record was there: %d sockets left repair mode, %d tasks run on\n", ns, done.Repaired, done.Continued)
		},
	}
	cmd.Flags().BoolVar(&criu, "criu-leftovers", false, "remove CRIU's own lock, left there by one that was killed, and nothing else")
	return cmd
}

// forgetDamaged removes the records of a namespace that nobody can read, after what they
// stood for was undone.
func forgetDamaged(id netns.ID) error {
	bad, err := record.Unreadable()
	errs := []error{err}
	for _, r := range bad {
		if of, ok := r.NetNS(); ok && of == id {
			errs = append(errs, r.Remove())
		}
	}
	return errors.Join(errs...)
}

func removeLeftovers(cmd *cobra.Command, target string) error {
	ns, err := openNetNS(target)
	if err != nil {
		return err
	}
	defer ns.Close()
	locks, err := keeper().RemoveLeftovers(ns)
	if err != nil {
		return err
	}
	if len(locks) == 0 {
		return say(cmd, "%s has no lock of CRIU's\n", ns)
	}
	return say(cmd, "%s: removed %s\n", ns, strings.Join(locks, ", "))
}

// nudgePackets is how many packets each connection may get at a thaw. A
// configuration that cannot be read must not keep anybody from thawing.
func nudgePackets() int {
	cfg, err := config.Load(config.Path)
	if err != nil || cfg.Resume != config.Nudge {
		return 0
	}
	return cfg.NudgePackets
}

func newKillCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "kill TARGET",
		Short: "End a held tree silently: no FIN, no RST, no socket left",
		Long: `End a tree that a dump left held, without a packet: its sockets are in repair
mode, so the kernel forgets them. The namespace stays frozen until a restore
into it, or until the time to live is over; netfreeze thaw ends that too.

` + targetHelp,
		Example: "  netfreeze kill 3f2a91",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needRoot(); err != nil {
				return err
			}
			done := waiting(cmd, "%s to end", args[0])
			found, err := records(args[0])
			if err == nil && len(found) == 0 {
				err = code.New(code.Target, fmt.Sprintf("%q names nothing that is held (see netfreeze status)", args[0]))
			}
			if err == nil {
				err = keeper().Kill(found...)
			}
			done()
			if err != nil {
				return err
			}
			for _, r := range found {
				note(cmd, r.ID, "ended by netfreeze kill", journal.Event{Kind: journal.Outcome, Name: journal.Ended})
				if err := say(cmd, "%s has ended; its network stays frozen until %s\n", r.Describe(), r.Ends().Format("15:04:05")); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// note adds what a command has done to the report of the dump or restore. It is done
// by then, so an error is only a warning.
func note(cmd *cobra.Command, id, text string, events ...journal.Event) {
	for _, e := range append([]journal.Event{{Kind: journal.Message, Level: "info", Text: text}}, events...) {
		if err := journal.Append(id, e); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: the report lacks that: %v\n", code.Any(err))
		}
	}
}
