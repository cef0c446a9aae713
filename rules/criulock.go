// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// CRIU locks the network with rules of its own: in an nftables table named CRIU-
// and the ID of the run (nftables_get_table in criu/netfilter.c), or in the chain
// CRIU of iptables' filter table (iptables_network_lock_internal in criu/net.c). If
// CRIU is killed, they stay behind.
const (
	criuTablePrefix = "CRIU-"
	criuChain       = "CRIU"
	filterTable     = "filter"
)

// CRIULocks returns the names of CRIU's own network locks in ns: the names of
// nftables tables, and "CRIU" for the chain, once for each variant of iptables that
// has it.
func CRIULocks(ns *netns.Namespace) ([]string, error) {
	locks, _, err := criuLocks(ns)
	return locks, err
}

// criuLocks is CRIULocks; it also returns the variants of iptables that have the chain.
func criuLocks(ns *netns.Namespace) (locks []string, variants []backend.Kind, err error) {
	tables, chain, err := criuNFT(ns)
	if err != nil {
		return nil, nil, fmt.Errorf("look for CRIU's network lock in %s: %w", ns, err)
	}
	locks = tables
	if chain {
		locks, variants = append(locks, criuChain), append(variants, backend.IPTablesNFT)
	}
	legacy, err := legacyTables(ns)
	if err != nil {
		return locks, variants, err
	}
	chains, err := legacyLock(ns, legacy)
	if len(chains) > 0 {
		locks, variants = append(locks, chains...), append(variants, backend.IPTablesLegacy)
	}
	return locks, variants, err
}

// legacyLock returns the name of the chain if the legacy variant, whose tables in use are
// given, has it.
func legacyLock(ns *netns.Namespace, tables []string) (lock []string, err error) {
	if !slices.Contains(tables, filterTable) {
		return nil, nil
	}
	i, err := openTools(ns, backend.IPTablesLegacy)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := make(chan bool, len(i.tools))
	err = i.each("look for CRIU's network lock", func(_ context.Context, t *iptTool) error {
		chains, err := t.ListChains(filterTable)
		found <- slices.Contains(chains, criuChain)
		return err
	})
	for range i.tools {
		if err == nil && <-found {
			lock = []string{criuChain}
		}
	}
	return lock, err
}

// criuNFT returns CRIU's nftables tables, and whether iptables' nft variant has its chain.
func criuNFT(ns *netns.Namespace) (tables []string, chain bool, err error) {
	err = withNFT(ns, func(c *nftConn) error {
		all, err := c.lists()
		tables, chain = all.criuTables(), all.criuChain()
		return err
	})
	return tables, chain, err
}

// criuTables returns the names of CRIU's own tables.
func (l lists) criuTables() (names []string) {
	for _, t := range l.tables {
		if t.Family == nftables.TableFamilyINet && strings.HasPrefix(t.Name, criuTablePrefix) && !slices.Contains(names, t.Name) {
			names = append(names, t.Name)
		}
	}
	return names
}

// criuChain reports whether iptables' nft variant has CRIU's chain.
func (l lists) criuChain() bool {
	return slices.ContainsFunc(l.chains, func(ch *nftables.Chain) bool {
		return ch.Table.Name == filterTable && ch.Name == criuChain
	})
}

// criuLocks returns the names of CRIU's locks among the lists, as CRIULocks does.
func (l lists) criuLocks() []string {
	if l.criuChain() {
		return append(l.criuTables(), criuChain)
	}
	return l.criuTables()
}

// RemoveCRIULocks removes CRIU's own network locks from a namespace, except those
// named in keep, which belong to another CRIU. It must be called only when the
// CRIU that made them is known to be dead; nobody else would ever remove them.
func RemoveCRIULocks(ns *netns.Isolated, keep []string) error {
	locks, variants, err := criuLocks(ns.Namespace)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range locks {
		if slices.Contains(keep, name) {
			continue
		}
		if name == criuChain {
			for _, k := range variants {
				errs = append(errs, removeCRIUChain(ns, k))
			}
			continue
		}
		errs = append(errs, removeTable(ns, name))
	}
	return errors.Join(errs...)
}

func removeTable(ns *netns.Isolated, name string) error {
	c, err := dialNFT(ns)
	if err != nil {
		return err
	}
	return errors.Join(c.remove(name), c.Close())
}

func removeCRIUChain(ns *netns.Isolated, k backend.Kind) error {
	i, err := openTools(ns, k)
	if err != nil {
		return err
	}
	return i.each("remove CRIU's network lock", func(_ context.Context, t *iptTool) error {
		for _, hook := range []string{"INPUT", "OUTPUT"} {
			if err := t.DeleteIfExists(filterTable, hook, "-j", criuChain); err != nil && !isNotThere(err) {
				return err
			}
		}
		if err := t.ClearAndDeleteChain(filterTable, criuChain); err != nil && !isNotThere(err) {
			return err
		}
		return nil
	})
}
