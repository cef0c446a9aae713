// Package rules decides where packets get dropped: it freezes and thaws the
// traffic of a network namespace, or of single TCP connections in it, by
// packet filter rules of its own. It knows nothing of CRIU apart from the mark
// of its packets.
//
// Two back ends do the same thing. nftables is spoken to by netlink; iptables
// and ip6tables, in their nft and legacy variants, are executed. Both let the
// kernel itself end a freeze when its time to live is over, so that nothing
// stays cut off for ever if the program that froze it dies.
//
// What is dropped is every packet, arriving (before routing) or leaving, IPv4
// and IPv6, loopback included, with two exceptions: packets with [Mark], and
// IPv6 neighbour discovery, without which peers would forget the frozen
// address. ARP never comes by these rules.
package rules

import (
	"errors"
	"fmt"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Mark is the packet mark that CRIU puts on what it sends itself while the
// network is locked (SOCCR_MARK in its soccr/soccr.h). On restore it sends such
// packets to rebuild half-closed connections, so a freeze must let them pass.
const Mark = 0xC114

// State is what is in force in a namespace.
type State struct {
	Backend backend.Kind  // the back end whose rules are there, "" if there are none; never Auto or IPTables
	Frozen  bool          // all traffic is dropped
	Left    time.Duration // until the kernel ends the freeze; 0 when not frozen
	SYNHeld bool          // new TCP connections are held off, and nothing else is
}

// Freezer freezes a whole network namespace. Its methods are idempotent and
// must not be called concurrently.
type Freezer interface {
	// Backend returns the back end in use, never Auto or IPTables.
	Backend() backend.Kind
	// Prepare puts the rules in place without freezing anything, so that
	// Freeze has little to do. For holdSYN, which the kernel measures, the
	// rules drop arriving TCP segments that open a connection; 0 holds off
	// none and ends an earlier hold. A freeze that is there stays, and its
	// end is the same.
	Prepare(holdSYN time.Duration) error
	// Freeze drops all traffic until Thaw, or until ttl is over. A repeated
	// Freeze counts ttl anew. It does not need a Prepare before it.
	Freeze(ttl time.Duration) error
	// Lift ends a freeze of this Freezer, and a hold of new connections, as
	// fast as it can: rules that drop nothing any more may stay, for Thaw to
	// remove when nobody waits.
	Lift() error
	// Thaw removes all that this back end ever made in the namespace for a
	// Freezer. That nothing is there is fine.
	Thaw() error
	// State looks at what is in force, by this back end's rules.
	State() (State, error)
	// Close releases what Open opened. Rules stay.
	Close() error
}

// ConnFreezer freezes single TCP connections. It is the only thing that may be
// used in the host's network namespace. Its methods are idempotent and must
// not be called concurrently.
type ConnFreezer interface {
	// Backend returns the back end in use, never Auto or IPTables.
	Backend() backend.Kind
	// Freeze drops the segments of conns, and of connections that the same
	// owner froze before, until Thaw, or until ttl is over. A repeated Freeze
	// counts ttl anew, for all of them, to within a hundredth of it.
	Freeze(conns []tcp.Tuple, ttl time.Duration) error
	// Thaw removes all rules of this owner. That nothing is there is fine.
	Thaw() error
	// Frozen returns the owner's frozen connections and the time left until
	// the kernel ends the freeze of the first one.
	Frozen() ([]tcp.Tuple, time.Duration, error)
	// Close releases what OpenConns opened. Rules stay.
	Close() error
}

// Open returns a Freezer for ns. Auto tries the back ends by having each put
// its rules in place and take them away again; the error says why each one
// failed. Nothing is left behind.
func Open(ns *netns.Isolated, k backend.Kind) (Freezer, error) {
	switch k {
	case backend.NFTables:
		return openNFT(ns)
	case backend.IPTables, backend.IPTablesNFT, backend.IPTablesLegacy:
		return openIPT(ns, k)
	case backend.Auto:
		return first(prove, func(k backend.Kind) (Freezer, error) { return Open(ns, k) })
	}
	return nil, fmt.Errorf("freeze %s: %w", ns, unknown(k))
}

// OpenConns returns a ConnFreezer for connections in ns, chosen like Open does.
// The owner, 1 to 12 lower-case letters and digits, keeps what it freezes apart
// from what others freeze in the same namespace.
func OpenConns(ns *netns.Namespace, k backend.Kind, owner string) (ConnFreezer, error) {
	if err := CheckOwner(owner); err != nil {
		return nil, fmt.Errorf("freeze connections in %s: %w", ns, err)
	}
	switch k {
	case backend.NFTables:
		return openNFTConns(ns, owner)
	case backend.IPTables, backend.IPTablesNFT, backend.IPTablesLegacy:
		return openIPTConns(ns, k, owner)
	case backend.Auto:
		return first(proveConns, func(k backend.Kind) (ConnFreezer, error) { return OpenConns(ns, k, owner) })
	}
	return nil, fmt.Errorf("freeze connections in %s: %w", ns, unknown(k))
}

func unknown(k backend.Kind) error {
	_, err := backend.Parse(string(k))
	return err
}

// autoOrder is what Auto tries. The nft variant of iptables by its own name is
// not among them: where nftables fails, so does this.
var autoOrder = []backend.Kind{backend.NFTables, backend.IPTables, backend.IPTablesLegacy}

// first returns what the first back end that works makes of open. A back end
// works if prove says so.
func first[T interface{ Close() error }](prove func(T) error, open func(backend.Kind) (T, error)) (T, error) {
	var failed []error
	for _, k := range autoOrder {
		f, err := open(k)
		if err == nil {
			if err = prove(f); err == nil {
				return f, nil
			}
			err = errors.Join(err, f.Close())
		}
		failed = append(failed, fmt.Errorf("%s: %w", k, err))
	}
	var none T
	return none, fmt.Errorf("no packet filter works (load nf_tables, or install iptables): %w", errors.Join(failed...))
}

// prove has f put its rules in place and take them away again, unless they are
// there already.
func prove(f Freezer) error {
	st, err := f.State()
	if err != nil || st.Backend != "" {
		return err
	}
	return errors.Join(f.Prepare(0), f.Thaw())
}

// proveConns is prove for a ConnFreezer.
func proveConns(f ConnFreezer) error {
	frozen, _, err := f.Frozen()
	if err != nil || len(frozen) > 0 {
		return err
	}
	return errors.Join(f.Freeze(nil, time.Second), f.Thaw())
}
