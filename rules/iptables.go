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
)

// rawTable is the table that both kinds of freeze use: its hooks come first.
const rawTable = "raw"

// lockTime is how many seconds a program of the legacy variant may wait for
// the lock that it shares with others.
const lockTime = 5

// programTime is how long one program may run, and visitTime how long all those
// that are needed for one change of one IP family's rules may. Both are far more
// than thousands of rules take: they end what would otherwise never end, while
// tasks are stopped.
var programTime, visitTime = 20 * time.Second, time.Minute

// iptTool is the pair of programs that change one IP family's rules: one for
// single questions and changes, one that applies a list of changes at once.
type iptTool struct {
	*iptables.IPTables
	restore string // path of iptables-restore or its like
}

// ipv6 tells whether the tool is for IPv6.
func (t *iptTool) ipv6() bool { return t.Proto() == iptables.ProtocolIPv6 }

// apply has the lines, in the form of iptables-restore(8), applied to the raw
// table, all or none. Chains that are not mentioned stay as they are. It must
// be called within the namespace.
func (t *iptTool) apply(ctx context.Context, lines []string) error {
	script := "*" + rawTable + "\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
	_, err := execute(ctx, script, t.restore, "--noflush", "--wait", fmt.Sprint(lockTime))
	return err
}

// execute runs a program, with stdin as its input, until ctx ends and for
// programTime at most. It returns what the program prints; the error has what it
// complains of.
func execute(ctx context.Context, stdin, path string, args ...string) (stdout string, err error) {
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // found by lookPath
	cmd.WaitDelay = time.Second                    // for children of its own that keep the pipes open
	cmd.Stdin = strings.NewReader(stdin)           // a pipe: fd 0 may be closed here
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err = cmd.Run()
	switch {
	case err != nil && ctx.Err() != nil:
		return "", fmt.Errorf("%s did not end in time (is there a program that keeps the lock of iptables?): %w", path, ctx.Err())
	case err != nil:
		return "", fmt.Errorf("%s: %w: %s", path, err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), nil
}

// bounded runs fn and stops waiting for it when ctx ends, since go-iptables has no
// bound for the programs that it executes. fn may still be running then, so its
// results must not be looked at when there is an error.
func bounded(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("an iptables program did not end in time: %w", ctx.Err())
	}
}

// ipt is the tools of one variant for one namespace.
type ipt struct {
	ns    visitor
	kind  backend.Kind // IPTablesNFT or IPTablesLegacy
	tools []*iptTool   // IPv4's, and IPv6's if the namespace has IPv6
}

// openTools finds the programs. It runs nothing but their --version.
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

// findIPT returns the base name of the programs of a kind (such as iptables or
// iptables-nft) and which variant they are. A variant may be installed under
// its own name or be the only one there is.
func findIPT(k backend.Kind) (base string, variant backend.Kind, err error) {
	if k != backend.IPTables {
		if _, err := lookPath(string(k)); err == nil {
			return string(k), k, nil
		}
	}
	path, err := lookPath(string(backend.IPTables))
	if err != nil {
		return "", "", fmt.Errorf("%w (install iptables, or use the back end %s)", err, backend.NFTables)
	}
	variant, err = variantOf(path)
	if err != nil {
		return "", "", err
	}
	if k != backend.IPTables && k != variant {
		return "", "", fmt.Errorf("%s: %w, and %s is %s", k, exec.ErrNotFound, path, variant)
	}
	return string(backend.IPTables), variant, nil
}

// variantOf asks an iptables program what it is. The nft variant says so in
// its version; the legacy variant does since 1.8, and before that it was all
// there was.
func variantOf(path string) (backend.Kind, error) {
	version, err := execute(context.Background(), "", path, "--version")
	if err != nil {
		return "", fmt.Errorf("ask %s what it is: %w", path, err)
	}
	if strings.Contains(version, "nf_tables") {
		return backend.IPTablesNFT, nil
	}
	return backend.IPTablesLegacy, nil
}

// newTool returns the pair of programs whose names begin with base.
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
	err = bounded(ctx, func() (err error) { // it asks for the version
		t.IPTables, err = iptables.New(iptables.IPFamily(proto), iptables.Path(path), iptables.Timeout(lockTime))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// sbinDirs is where the programs are, for callers whose PATH is poor.
var sbinDirs = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// lookPath is exec.LookPath that looks into sbinDirs too.
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
	return "", fmt.Errorf("%w, nor in %s", err, strings.Join(sbinDirs, ", "))
}

// hasIPv6 tells whether there is IPv6 in a namespace: a kernel without it, or
// started with ipv6.disable=1, has no such file. Where IPv6 is only switched
// off by sysctl it could be switched on again, so it counts.
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

// each runs f for all tools at the same time, in the namespace. It gives up after
// visitTime and ends the context; after an error f may still be running.
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
				errs[n] = fmt.Errorf("%s in %s by %s: %w", what, i.ns, i.kind, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// isNotThere tells whether an iptables program failed because a table, chain
// or rule does not exist.
func isNotThere(err error) bool {
	var e *iptables.Error
	return errors.As(err, &e) && e.IsNotExist()
}
