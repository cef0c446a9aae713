// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"errors"
	"slices"

	"github.com/google/nftables"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// Survey returns what [Look] and [CRIULocks] return, for callers that are waited for: the
// kernel is asked once, by one socket in one visit, and where programs have to be run they
// run side by side. The locks may be known although the state is not, and the other way
// round: err is about the state, and the locks are what was found.
func Survey(ns *netns.Namespace) (st State, locks []string, err error) {
	nft, legacy, err := enter(ns)
	if err != nil {
		return State{}, nil, err
	}
	var found lists
	if nft != nil {
		defer nft.Close()
		if found, err = nft.lists(); err != nil {
			return State{}, nil, err
		}
	}
	there, locks := found.backends(legacy), found.criuLocks()
	more := make(chan []string, 1)
	go func() {
		chain, _ := legacyLock(ns, legacy)
		more <- chain
	}()
	states := make([]chan stateOf, len(there))
	for i, k := range there {
		states[i] = make(chan stateOf, 1)
		go func() {
			var s stateOf
			if k == backend.NFTables {
				s.State, s.err = nft.state()
			} else {
				s.State, s.err = stateBy(ns, k)
			}
			states[i] <- s
		}()
	}
	for _, c := range states {
		s := <-c
		err = errors.Join(err, s.err)
		if st.Backend == "" || s.Frozen && !st.Frozen {
			st = s.State
		}
	}
	locks = append(locks, <-more...)
	if err != nil {
		return State{}, locks, err
	}
	return st, locks, nil
}

// stateOf is what one back end says.
type stateOf struct {
	State
	err error
}

// enter opens a socket in ns, nil if the kernel has no nf_tables, and returns the legacy
// variant's tables that are in use there.
func enter(ns visitor) (c *nftConn, legacy []string, err error) {
	c = &nftConn{ns: ns}
	var err2 error
	err = ns.Do(func() error {
		legacy, err2 = legacyNames(ns)
		return c.dialHere()
	})
	if err == nil {
		if _, err = c.generation(); err != nil {
			_ = c.Close() // it never fails, see there
		}
	}
	if errors.Is(err, errWithoutNFT) {
		c, err = nil, nil
	}
	if err = errors.Join(err, err2); err != nil && c != nil && c.Conn != nil {
		_ = c.Close()
	}
	return c, legacy, err
}

// lists are all tables and chains of a namespace, of all families.
type lists struct {
	tables []*nftables.Table
	chains []*nftables.Chain
}

// lists reads them in one piece.
func (c *nftConn) lists() (l lists, err error) {
	err = c.consistent(func() (err error) {
		if l.tables, err = c.ListTables(); err != nil {
			return err
		}
		l.chains, err = c.ListChains()
		return err
	})
	return l, err
}

// backends is like lookForBackends.
func (l lists) backends(legacy []string) (there []backend.Kind) {
	for _, ours := range []*nftables.Table{wholeTable, packetTable} {
		if slices.ContainsFunc(l.tables, func(t *nftables.Table) bool { return t.Name == ours.Name && t.Family == ours.Family }) {
			there = append(there, backend.NFTables)
			break
		}
	}
	if slices.ContainsFunc(l.chains, isWholeChain) {
		there = append(there, backend.IPTablesNFT)
	}
	if slices.Contains(legacy, rawTable) {
		there = append(there, backend.IPTablesLegacy)
	}
	return there
}
