package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/coreos/go-iptables/iptables"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
)

// rawTable is the table that both kinds of freeze use: its hooks come first.
const rawTable = "raw"

// lockTime is how many seconds a program of the legacy variant may wait for
// the lock that it shares with others.
const lockTime = 5

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
func (t *iptTool) apply(lines []string) error {
	script := "*" + rawTable + "\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
	cmd := exec.Command(t.restore, "--noflush", "--wait", fmt.Sprint(lockTime)) //nolint:gosec // found by findIPT
	cmd.Stdin = strings.NewReader(script)                                       // a pipe: fd 0 may be closed here
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", t.restore, err, strings.TrimSpace(stderr.String()))
	}
	return nil
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
	out, err := exec.Command(path, "--version").Output() //nolint:gosec // found by lookPath
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	if strings.Contains(string(out), "nf_tables") {
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
	t, err := iptables.New(iptables.IPFamily(proto), iptables.Path(path), iptables.Timeout(lockTime))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &iptTool{t, restore}, nil
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

// each runs f for all tools at the same time, in the namespace.
func (i *ipt) each(what string, f func(*iptTool) error) error {
	errs := make([]error, len(i.tools))
	var all sync.WaitGroup
	for n, t := range i.tools {
		all.Go(func() {
			if err := i.ns.Do(func() error { return f(t) }); err != nil {
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
