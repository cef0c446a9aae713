// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-iptables/iptables"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// rawTable is the table that both kinds of freeze use, because its hooks come first.
const rawTable = "raw"

// lockTime is how many seconds a program may wait for the lock that all programs
// of the legacy variant share.
const lockTime = 5

// programTime is how long one program may run, and visitTime how long all those may
// run together that one change needs. Thousands of rules take far less. They are
// there because tasks may be stopped until the last program has ended.
var programTime, visitTime = 20 * time.Second, time.Minute

// iptTool is the pair of programs for one IP family's rules: one that reads rules
// and makes single changes, and one that applies a list of changes at once.
type iptTool struct {
	*iptables.IPTables
	restore string // the path of iptables-restore or its counterpart
}

// ipv6 reports whether the tool is for IPv6.
func (t *iptTool) ipv6() bool { return t.Proto() == iptables.ProtocolIPv6 }

// apply applies lines in the format of iptables-restore(8) to the raw table, either
// all of them or none. Chains that they do not mention stay as they are. It must
// be called inside the namespace.
func (t *iptTool) apply(ctx context.Context, lines []string) error {
	script := "*" + rawTable + "\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
	_, err := execute(ctx, script, t.restore, "--noflush", "--wait", fmt.Sprint(lockTime))
	return err
}

// execute runs a program with stdin as its input and returns its output. It kills
// the program when ctx ends, and after programTime at the latest. The error
// contains what the program printed to stderr.
func execute(ctx context.Context, stdin, path string, args ...string) (stdout string, err error) {
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second          // in case children of its own keep the pipes open
	cmd.Stdin = strings.NewReader(stdin) // a pipe, since fd 0 may be closed here
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err = cmd.Run()
	switch {
	case err != nil && ctx.Err() != nil:
		return "", code.Wrap(code.FilterBusy, fmt.Errorf("%s did not end in time (does another program keep the lock of iptables?): %w", path, ctx.Err()))
	case err != nil:
		return "", code.Wrap(code.FilterBusy, fmt.Errorf("%s: %w: %s", path, err, strings.TrimSpace(stderr.String())))
	}
	return out.String(), nil
}

// bounded runs fn, and stops waiting for it when ctx ends: go-iptables sets no limit
// to the programs that it runs. fn may still be running then, so after an error
// the caller must not use what fn writes to.
func bounded(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return code.Wrap(code.FilterBusy, fmt.Errorf("an iptables program did not end in time: %w", ctx.Err()))
	}
}

// ipt has the tools of one variant of iptables for one namespace.
type ipt struct {
	ns    visitor
	kind  backend.Kind // IPTablesNFT or IPTablesLegacy
	tools []*iptTool   // for IPv4, and for IPv6 if the namespace has it
}

// openTools finds the programs of a variant. It runs them with --version only.
func openTools(ns visitor, k backend.Kind) (*ipt, error) {
	i := &ipt{ns: ns}
	has6, err := hasIPv6(ns)
	if err != nil {
		return nil, err
	}
	base, kind, err := findIPT(k)
	if err != nil {
		return nil, fmt.Errorf("use %s in %s: %w", k, ns, err)
	}
	i.kind = kind
	tool, err := newTool(iptables.ProtocolIPv4, base)
	if err != nil {
		return nil, fmt.Errorf("use %s in %s: %w", k, ns, err)
	}
	i.tools = append(i.tools, tool)
	if has6 {
		tool, err = newTool(iptables.ProtocolIPv6, "ip6"+strings.TrimPrefix(base, "ip"))
		if err != nil {
			return nil, fmt.Errorf("use %s in %s, which has IPv6 too: %w", k, ns, err)
		}
		i.tools = append(i.tools, tool)
	}
	return i, nil
}

// findIPT returns the base name of a back end's programs, such as iptables or
// iptables-nft, and which variant of iptables they are. A variant may be installed
// under its own name or just as iptables.
func findIPT(k backend.Kind) (base string, variant backend.Kind, err error) {
	if k != backend.IPTables {
		if _, err := lookPath(string(k)); err == nil {
			return string(k), k, nil
		}
	}
	path, err := lookPath(string(backend.IPTables))
	if err != nil {
		return "", "", code.Wrap(code.NoBackend, fmt.Errorf("%w (install iptables, or use the back end %s)", err, backend.NFTables))
	}
	variant, err = variantOf(path)
	if err != nil {
		return "", "", err
	}
	if k != backend.IPTables && k != variant {
		return "", "", code.Wrap(code.NoBackend, fmt.Errorf("%s: %w, and %s is %s", k, exec.ErrNotFound, path, variant))
	}
	return string(backend.IPTables), variant, nil
}

// variantOf returns which variant an iptables program is. The nft variant says so in
// its version. So does the legacy variant since 1.8; before that, there was no
// other.
func variantOf(path string) (backend.Kind, error) {
	version, err := execute(context.Background(), "", path, "--version")
	if err != nil {
		return "", fmt.Errorf("find out which variant of iptables %s is: %w", path, err)
	}
	if strings.Contains(version, "nf_tables") {
		return backend.IPTablesNFT, nil
	}
	return backend.IPTablesLegacy, nil
}

// newTool returns the programs called base and base-restore.
func newTool(proto iptables.Protocol, base string) (*iptTool, error) {
	path, err := lookPath(base)
	if err != nil {
		return nil, err
	}
	restore, err := lookPath(base + "-restore")
	if err != nil {
		return nil, err
	}
	t := &iptTool{restore: restore}
	ctx, cancel := context.WithTimeout(context.Background(), programTime)
	defer cancel()
	err = bounded(ctx, func() (err error) { // it runs the program with --version
		t.IPTables, err = iptables.New(iptables.IPFamily(proto), iptables.Path(path), iptables.Timeout(lockTime))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// sbinDirs is where the programs usually are, for callers whose PATH lacks that.
var sbinDirs = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// lookPath is like exec.LookPath, but also looks in sbinDirs.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range sbinDirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", code.Wrap(code.NoBackend, fmt.Errorf("%w, nor in %s", err, strings.Join(sbinDirs, ", ")))
}

// hasIPv6 reports whether a namespace has IPv6. If the kernel has none, or was
// started with ipv6.disable=1, the file is missing. IPv6 that is switched off by
// sysctl counts, as it could be switched on again.
func hasIPv6(ns visitor) (bool, error) {
	err := ns.Do(func() error {
		_, err := os.Stat("/proc/thread-self/net/if_inet6")
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for IPv6 in %s: %w", ns, err)
	}
	return true, nil
}

// each runs f for all tools at the same time, inside the namespace, and cancels its
// context after visitTime. After an error f may still be running, see bounded.
func (i *ipt) each(what string, f func(context.Context, *iptTool) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), visitTime)
	defer cancel()
	errs := make([]error, len(i.tools))
	var all sync.WaitGroup
	for n, t := range i.tools {
		all.Go(func() {
			err := bounded(ctx, func() error {
				return i.ns.Do(func() error { return f(ctx, t) })
			})
			if err != nil {
				errs[n] = ofTool(fmt.Errorf("%s in %s by %s: %w", what, i.ns, i.kind, err))
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// ofTool gives an error of an iptables program the code that fits.
func ofTool(err error) error {
	const noLock = 4 // RESOURCE_PROBLEM in iptables/xshared.h: somebody else has the lock
	if e, ok := errors.AsType[*iptables.Error](err); ok && e.ExitStatus() == noLock {
		return code.Wrap(code.FilterBusy, err)
	}
	return err
}

// isNotThere reports whether an iptables program failed because a table, chain or
// rule does not exist.
func isNotThere(err error) bool {
	var e *iptables.Error
	return errors.As(err, &e) && e.IsNotExist()
}
