// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// Filter is a packet filter: it opens freezers, and finds and removes what is in
// force in a namespace. [Kernel] is the real one; package fake has one in memory,
// for tests.
type Filter interface {
	// Open returns a Freezer for ns; see the function [Open].
	Open(ns *netns.Isolated, k backend.Kind) (Freezer, error)
	// OpenConns returns a ConnFreezer for connections in ns; see the function [OpenConns].
	OpenConns(ns *netns.Namespace, k backend.Kind, owner string) (ConnFreezer, error)
	// Look returns the state of ns, whichever back end made the rules.
	Look(ns *netns.Namespace) (State, error)
	// Survey returns what Look and CRIULocks return, sooner than both; see the function [Survey].
	Survey(ns *netns.Namespace) (State, []string, error)
	// ThawAll removes the rules with which any back end froze the whole of ns.
	ThawAll(ns *netns.Isolated) error
	// CRIULocks returns the names of CRIU's own network locks in ns.
	CRIULocks(ns *netns.Namespace) ([]string, error)
	// RemoveCRIULocks removes CRIU's own network locks, except those named in keep.
	RemoveCRIULocks(ns *netns.Isolated, keep []string) error
}

// Kernel is the running kernel's packet filter.
type Kernel struct{}

// Open implements Filter.
func (Kernel) Open(ns *netns.Isolated, k backend.Kind) (Freezer, error) { return Open(ns, k) }

// OpenConns implements Filter.
func (Kernel) OpenConns(ns *netns.Namespace, k backend.Kind, owner string) (ConnFreezer, error) {
	return OpenConns(ns, k, owner)
}

// Look implements Filter.
func (Kernel) Look(ns *netns.Namespace) (State, error) { return Look(ns) }

// Survey implements Filter.
func (Kernel) Survey(ns *netns.Namespace) (State, []string, error) { return Survey(ns) }

// ThawAll implements Filter.
func (Kernel) ThawAll(ns *netns.Isolated) error { return ThawAll(ns) }

// CRIULocks implements Filter.
func (Kernel) CRIULocks(ns *netns.Namespace) ([]string, error) { return CRIULocks(ns) }

// RemoveCRIULocks implements Filter.
func (Kernel) RemoveCRIULocks(ns *netns.Isolated, keep []string) error {
	return RemoveCRIULocks(ns, keep)
}
