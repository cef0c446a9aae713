// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/install"
	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// netnsDir is where iproute2 and most CNI set-ups give namespaces their names.
const netnsDir = "/run/netns"

// addCompletions says what a shell may offer after a command's name and after its
// flags. Whoever presses the tabulator key waits: so this reads directories and
// records, and asks neither the kernel nor every process.
func addCompletions(root *cobra.Command) {
	targets := map[string]func() []cobra.Completion{
		"thaw": frozenTargets, "kill": frozenTargets, "freeze": runningTargets, "policy": runningContainers,
		"doctor": runningTargets, "report": reportIDs,
	}
	values := map[string][]string{
		"output":          {outputText, outputJSON},
		"network-lock":    append(install.NetworkLocks(), criusLock),
		"stop-after-dump": names(config.Policies()),
		"runtime":         install.Runtimes(),
		"backend":         names(backend.All()),
	}
	var add func(*cobra.Command)
	add = func(cmd *cobra.Command) {
		if list, ok := targets[cmd.Name()]; ok {
			cmd.ValidArgsFunction = completeTarget(list)
		}
		for name, list := range values {
			if cmd.Flags().Lookup(name) != nil {
				// It fails only for a flag that the command lacks, or that has one already.
				_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
			}
		}
		for _, sub := range cmd.Commands() {
			add(sub)
		}
	}
	add(root)
}

// reportIDs offers the reports' ids, and the word for the newest.
func reportIDs() []cobra.Completion {
	ids, err := journal.IDs()
	if err != nil {
		return nil // nothing to offer
	}
	return append(ids, "last")
}

// names returns the values of one type as text.
func names[T ~string](values []T) (text []string) {
	for _, v := range values {
		text = append(text, string(v))
	}
	return text
}

// completeTarget offers what list returns, once: each of these commands takes one
// TARGET. Others than root cannot read what it stands for, and get nothing.
func completeTarget(list func() []cobra.Completion) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 || os.Geteuid() != 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if strings.HasPrefix(begun, "/") {
			return nil, cobra.ShellCompDirectiveDefault // the path of a namespace
		}
		offers := list()
		slices.Sort(offers)
		offers = slices.DeleteFunc(slices.Compact(offers), func(o cobra.Completion) bool { return !strings.HasPrefix(o, begun) })
		return offers, cobra.ShellCompDirectiveNoFileComp
	}
}

// frozenTargets names what records stand for: by container, process and namespace.
func frozenTargets() (offers []cobra.Completion) {
	all, _ := record.All() // those that can be read
	for _, r := range all {
		offers = offer(offers, short(r.Container.ID), r.DescribeHold())
		if r.Alive() {
			offers = offer(offers, fmt.Sprint(r.Tree[0].PID), r.DescribeHold())
		}
		if filepath.Dir(r.Path) == netnsDir {
			offers = offer(offers, filepath.Base(r.Path), r.DescribeHold())
		} else {
			offers = offer(offers, r.NetNS.String(), r.DescribeHold())
		}
	}
	return offers
}

// runningTargets names what could be frozen: containers and namespaces.
func runningTargets() []cobra.Completion {
	offers := runningContainers()
	entries, _ := os.ReadDir(netnsDir) // it need not be there
	for _, e := range entries {
		offers = offer(offers, e.Name(), "network namespace")
	}
	return offers
}

// runningContainers names the containers that a runtime knows.
func runningContainers() (offers []cobra.Completion) {
	for _, id := range container.IDs() {
		offers = offer(offers, short(id), "container")
	}
	return offers
}

// offer adds a name with what it stands for, unless it has characters that a shell or a
// terminal could take for something else.
func offer(offers []cobra.Completion, name, what string) []cobra.Completion {
	if name == "" || printable.Text(name) != name || strings.ContainsAny(name, " \t\"'`$\\;&|<>(){}*?!#~") {
		return offers
	}
	return append(offers, cobra.CompletionWithDesc(name, printable.Text(what)))
}
