package rules

import (
	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// Filter is a packet filter: it opens the freezes of namespaces and finds those
// that are there. Kernel is the real one; package fake has one without effect.
type Filter interface {
	// Open returns a Freezer for ns, see the function Open.
	Open(ns *netns.Isolated, k backend.Kind) (Freezer, error)
	// OpenConns returns a ConnFreezer for connections in ns, see the function OpenConns.
	OpenConns(ns *netns.Namespace, k backend.Kind, owner string) (ConnFreezer, error)
	// Look returns what is in force in ns, whichever back end made it.
	Look(ns *netns.Namespace) (State, error)
	// ThawAll removes what any back end made to freeze the whole of ns.
	ThawAll(ns *netns.Isolated) error
	// CRIULocks returns the names of the locks that CRIU has in ns now.
	CRIULocks(ns *netns.Namespace) ([]string, error)
	// RemoveCRIULocks removes CRIU's locks, except those named in keep.
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

// ThawAll implements Filter.
func (Kernel) ThawAll(ns *netns.Isolated) error { return ThawAll(ns) }

// CRIULocks implements Filter.
func (Kernel) CRIULocks(ns *netns.Namespace) ([]string, error) { return CRIULocks(ns) }

// RemoveCRIULocks implements Filter.
func (Kernel) RemoveCRIULocks(ns *netns.Isolated, keep []string) error {
	return RemoveCRIULocks(ns, keep)
}
