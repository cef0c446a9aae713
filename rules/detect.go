// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// ThawAll removes the rules with which any back end froze the whole of ns, for
// callers that do not know which one it was. It is no error if there are none.
// iptables is run only if rules of its variant may be in place, and skipped if it
// is not installed: it cannot have made them then, and the legacy variant's raw
// table may be the container's own. If something fails, the rest is still done.
func ThawAll(ns *netns.Isolated) error {
	var there []backend.Kind
	err := withNFT(ns, func(c *nftConn) (err error) {
		there, err = c.backends()
		return errors.Join(err, c.thaw())
	})
	legacy, err2 := hasLegacyRaw(ns)
	if legacy {
		there = append(there, backend.IPTablesLegacy)
	}
	errs := []error{err, err2}
	for _, k := range there {
		if k != backend.NFTables {
			errs = append(errs, thawOne(ns, k))
		}
	}
	return errors.Join(errs...)
}

func thawOne(ns *netns.Isolated, k backend.Kind) error {
	f, err := Open(ns, k)
	if errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Thaw(), f.Close())
}

// Look returns the state of ns, whichever back end made the rules. If several
// did, a freeze takes precedence over rules that drop nothing. Look changes nothing.
func Look(ns *netns.Namespace) (State, error) {
	there, err := lookForBackends(ns)
	if err != nil {
		return State{}, err
	}
	var found State
	for _, k := range there {
		st, err := stateBy(ns, k)
		if err != nil {
			return State{}, err
		}
		if found.Backend == "" || st.Frozen && !found.Frozen {
			found = st
		}
	}
	return found, nil
}

func stateBy(ns *netns.Namespace, k backend.Kind) (State, error) {
	if k == backend.NFTables {
		c, err := dialNFT(ns)
		if err != nil {
			return State{}, err
		}
		st, err := c.state()
		return st, errors.Join(err, c.Close())
	}
	i, err := openTools(ns, k)
	if errors.Is(err, exec.ErrNotFound) {
		return State{}, nil
	}
	if err != nil {
		return State{}, err
	}
	return i.state()
}

// lookForBackends returns the back ends that may have rules in ns. It runs no
// program to find out.
func lookForBackends(ns visitor) (there []backend.Kind, err error) {
	err = withNFT(ns, func(c *nftConn) (err error) {
		there, err = c.backends()
		return err
	})
	if err != nil {
		return nil, err
	}
	legacy, err := hasLegacyRaw(ns)
	if legacy {
		there = append(there, backend.IPTablesLegacy)
	}
	return there, err
}

// withNFT calls fn with a socket in ns. It does nothing if the kernel has no
// nf_tables.
func withNFT(ns visitor, fn func(*nftConn) error) error {
	c, err := dialNFT(ns)
	if errors.Is(err, errWithoutNFT) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(fn(c), c.Close())
}

// backends looks for our nftables tables, and for our chains of iptables' nft
// variant, which are nftables chains of the families ip and ip6.
func (c *nftConn) backends() (there []backend.Kind, err error) {
	tables, err := c.existing(wholeTable, packetTable)
	if err != nil {
		return nil, err
	}
	if len(tables) > 0 {
		there = append(there, backend.NFTables)
	}
	chains, err := c.chains()
	if err != nil {
		return there, err
	}
	if slices.ContainsFunc(chains, isWholeChain) {
		there = append(there, backend.IPTablesNFT)
	}
	return there, nil
}

func isWholeChain(c *nftables.Chain) bool {
	ip := c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyIPv6
	return ip && c.Table.Name == rawTable && (c.Name == wholeChains.in || c.Name == wholeChains.out)
}

// hasLegacyRaw reports whether the legacy variant's raw table is in use in ns, for
// IPv4 or IPv6.
func hasLegacyRaw(ns visitor) (bool, error) {
	tables, err := legacyTables(ns)
	return slices.Contains(tables, rawTable), err
}

// legacyTables returns the names of the legacy variant's tables that are in use in
// ns, for IPv4 or IPv6. The kernel lists a table from its first use on.
func legacyTables(ns visitor) (tables []string, err error) {
	err = ns.Do(func() (err error) {
		tables, err = legacyNames(ns)
		return err
	})
	return tables, err
}

// legacyNames is legacyTables for a caller who is in ns.
func legacyNames(ns visitor) (tables []string, err error) {
	for _, list := range []string{"ip_tables_names", "ip6_tables_names"} {
		names, err := os.ReadFile("/proc/thread-self/net/" + list)
		if errors.Is(err, fs.ErrNotExist) {
			continue // this kernel does not have the legacy variant
		}
		if err != nil {
			return tables, fmt.Errorf("look for iptables-legacy's tables in %s: %w", ns, err)
		}
		tables = append(tables, strings.Fields(string(names))...)
	}
	return tables, nil
}
