// SPDX-License-Identifier: Apache-2.0

// Package ocihook is netfreeze-oci, an OCI createRuntime hook that freezes the
// network namespace of a container which is about to be restored, or of the
// pod that it will be restored into. The restore adopts the freeze. Other
// containers it leaves alone.
//
// It is for callers whose runtime makes the namespace (runc, crun), and for
// podman's pods, whose namespace exists before anything is restored. As the
// first createRuntime hook it runs before those that connect the namespace.
package ocihook

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/expect"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

const program = "netfreeze-oci"

// Main is the hook, called with its arguments, the container's state on stdin
// and the runtime's log as stderr. It returns the exit code: with one other
// than 0 the runtime gives the container up.
func Main(args []string, stdin io.Reader, stderr io.Writer) int {
	err := run(args, stdin, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", program, code.Any(err))
		return 1
	}
	return 0
}

func run(args []string, stdin io.Reader, stderr io.Writer) error {
	pods, err := parseArgs(args, stderr)
	if err != nil {
		return err
	}
	c, pid, err := container.ReadState(stdin)
	if err != nil {
		return err
	}
	n := expect.Newcomer{Container: c.Container}
	ns, err := netns.OpenPID(pid, 0)
	if err != nil {
		return err
	}
	defer ns.Close()
	// The addresses of the host, or of whatever called us, are no sign of
	// anything.
	if _, err := ns.Isolate(); err == nil {
		if n.Addresses, err = addresses(ns); err != nil {
			return err
		}
	}
	why, err := expect.Expected(n, pods)
	if err != nil {
		fmt.Fprintf(stderr, "%s: warning: %v\n", program, err)
	}
	if why == nil {
		return nil
	}
	r := record.Record{ID: "oci-" + strings.ReplaceAll(c.ID, "/", "_")}
	if _, err := expect.Newborn(ns, n, why, program, r); err != nil {
		return fmt.Errorf("cannot freeze the network of container %s (%s): %w", c.ID, why, err)
	}
	return nil
}

// parseArgs returns the patterns of pods that are always frozen.
func parseArgs(args []string, stderr io.Writer) ([]string, error) {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, `usage: %s [--pod PATTERN]... <STATE

An OCI createRuntime hook. It freezes the container's network namespace if the
container, its pod or one of its addresses is expected (netfreeze expect), or if
its pod matches a pattern, and does nothing otherwise.

`, program)
		flags.PrintDefaults()
	}
	var pods []string
	flags.Func("pod", "`PATTERN` of pods that are always frozen, such as shop/db-* (may be given again)", func(p string) error {
		pods = append(pods, p)
		return expect.CheckPatterns([]string{p})
	})
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, code.New(code.NotByCRIU, fmt.Sprintf("unexpected argument %q", flags.Arg(0)))
	}
	return pods, nil
}

// addresses returns those that the namespace's interfaces have.
func addresses(ns *netns.Namespace) ([]netip.Addr, error) {
	var addrs []netip.Addr
	err := ns.Do(func() error {
		found, err := net.InterfaceAddrs()
		if err != nil {
			return fmt.Errorf("list the addresses in %s: %w", ns, err)
		}
		for _, a := range found {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				addrs = append(addrs, prefix.Addr().Unmap())
			}
		}
		return nil
	})
	return addrs, err
}
