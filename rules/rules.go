// SPDX-License-Identifier: Apache-2.0

// Package rules drops packets: it freezes and thaws a network namespace, or
// single TCP connections in it, with packet filter rules of its own. All it knows
// of CRIU is the mark on CRIU's packets and the names of CRIU's own network locks.
//
// Two back ends do the same thing. The nftables back end talks netlink to the
// kernel; the iptables back end runs iptables and ip6tables, in their nft or
// legacy variant. With both, the kernel itself ends a freeze when its time to
// live is over, so that nothing stays cut off for ever if the program that froze
// it dies.
//
// A frozen namespace drops every packet that arrives (before routing) or leaves,
// IPv4 and IPv6, loopback included. There are two exceptions: packets with [Mark],
// and IPv6 neighbour discovery, without which the neighbours would forget the
// frozen address. ARP does not pass through these hooks.
//
// Any process with CAP_NET_RAW can set the mark, and its packet sockets bypass the
// hooks altogether. While all tasks are stopped nobody takes advantage of that.
// Before tasks go on in a frozen namespace, the freeze is to be sealed: see
// [Freezer].
//
// A sealed freeze can leave one door open, for answers to the peers that keep them from
// giving up (package answer): empty acknowledgements with a window of 0 and a mark that
// is drawn at random for the transaction. It is no hole. It leads out only, never in.
// What passes has no data and no flag but ACK, and tells a peer nothing but to wait. The
// mark is in a record that only root can read, and in the rules: whoever may read those
// has CAP_NET_ADMIN in the namespace, and could as well delete the table. One who can
// only set marks would have to try some 2^32 of them first. (With iptables the window and
// the length are not looked at. Packet sockets, which need no mark, are not stopped
// there either.)
package rules

import (
	"errors"
	"fmt"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Mark is the packet mark that CRIU sets on its own packets while the network is
// locked (SOCCR_MARK in its soccr/soccr.h). A restore rebuilds half-closed
// connections with such packets, so a freeze must let them pass, unless it is sealed.
const Mark = 0xC114

// ErrNotFrozen means that there is no freeze to seal.
var ErrNotFrozen = errors.New("nothing is frozen")

// ErrPacketSockets means that packets with [Mark] no longer pass a freeze, but what
// is sent on packet sockets (packet(7)) still does.
var ErrPacketSockets = code.New(code.PacketSockets, "packet sockets can still send "+
	"(to stop them needs nf_tables with the family netdev and its egress hook: Linux 5.16 and CONFIG_NETFILTER_EGRESS)")

// State describes the freeze of a whole namespace.
type State struct {
	Backend backend.Kind  // whose rules are in place, "" if there are none; never Auto or IPTables
	Frozen  bool          // all traffic is being dropped
	Left    time.Duration // time until the kernel ends the freeze; 0 if not frozen
	SYNHeld bool          // arriving TCP connections are being held off, and nothing else is dropped
}

// Freezer freezes a whole network namespace. Its methods are idempotent and
// must not be called concurrently.
type Freezer interface {
	// Backend returns the back end in use, never Auto or IPTables.
	Backend() backend.Kind
	Windows
	// Prepare puts the rules in place without freezing anything, so that
	// Freeze has little left to do. For the duration holdSYN, which the kernel
	// measures, the rules drop arriving TCP segments that open a connection; 0
	// drops none and ends an earlier hold. An existing freeze stays in force
	// and ends when it would have ended anyway.
	Prepare(holdSYN time.Duration) error
	// Freeze drops all traffic until Thaw, or until ttl has passed. Freezing
	// again restarts the time to live. Prepare need not be called first. If
	// there is an error, an existing freeze stays in force.
	Freeze(ttl time.Duration) error
	// Seal lets packets with Mark no longer pass a freeze, whoever made it, until
	// Prepare or Freeze is called again. Everything else stays as it is, the
	// time to live included. Returns an error that wraps ErrNotFrozen if the
	// namespace is not frozen.
	//
	// With nftables, Seal also drops what packet sockets send on the interfaces
	// that the namespace has now, except loopback; ARP and IPv6 neighbour
	// discovery pass. If only that fails, the error wraps ErrPacketSockets.
	// AF_XDP sockets, which send below every hook, are not stopped. With
	// iptables, which has no such hook, neither are packet sockets, and that is
	// no error.
	//
	// With pass, which is a mark other than 0 and Mark, empty acknowledgements that
	// close the window leave all the same if they have it; nothing with it arrives.
	// See the package comment.
	Seal(pass uint32) error
	// Lift ends a freeze made by this Freezer, and a hold of new connections,
	// as fast as possible. Rules that no longer drop anything may stay behind;
	// Thaw removes them when nobody is waiting.
	Lift() error
	// Thaw removes everything that this back end ever put into the namespace
	// for a Freezer. It is no error if there is nothing.
	Thaw() error
	// State returns what this back end's rules do in the namespace now.
	State() (State, error)
	// Close releases the Freezer's own resources. The rules stay in place.
	Close() error
}

// ConnFreezer freezes single TCP connections. It is the only kind of freeze that
// is allowed in the host's network namespace. Its methods are idempotent and must
// not be called concurrently.
type ConnFreezer interface {
	// Backend returns the back end in use, never Auto or IPTables.
	Backend() backend.Kind
	Windows
	// Freeze drops the segments of conns, and of connections that the same
	// owner froze before, until Thaw, or until ttl has passed. Freezing again
	// restarts the time to live of all of them, to within a hundredth of it.
	// If there is an error, connections that were frozen before stay frozen.
	Freeze(conns []tcp.Tuple, ttl time.Duration) error
	// Seal lets segments with Mark no longer pass the owner's frozen connections,
	// until more of them are frozen or the same ones again. Everything else stays
	// as it is. It is no error if no connection is frozen. Packet sockets are not
	// stopped: other processes of the namespace may need theirs. What pass is for, see
	// Freezer.
	Seal(pass uint32) error
	// Thaw removes all rules of this owner. It is no error if there are none.
	Thaw() error
	// Frozen returns the owner's frozen connections and the time left until
	// the kernel ends the first of their freezes.
	Frozen() ([]tcp.Tuple, time.Duration, error)
	// Close releases the ConnFreezer's own resources. The rules stay in place.
	Close() error
}

// Open returns a Freezer for ns. With Auto it takes the first back end that can
// put its rules in place and remove them again; if none can, the error says why
// each of them failed. It leaves no rules behind.
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

// OpenConns returns a ConnFreezer for connections in ns; the back end is chosen as
// in Open. The owner, 1 to 12 lower-case letters and digits (see [CheckOwner]),
// keeps its frozen connections apart from those of others in the same namespace.
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

// autoOrder lists what Auto tries. The nft variant of iptables is not there under
// its own name: it fails wherever nftables does.
var autoOrder = []backend.Kind{backend.NFTables, backend.IPTables, backend.IPTablesLegacy}

// first opens one back end after the other and returns the first one that works,
// which is up to prove.
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
	return none, code.Wrap(code.NoBackend, fmt.Errorf("no packet filter works (load nf_tables, or install iptables): %w", errors.Join(failed...)))
}

// prove makes sure that f can put its rules in place and remove them again. If
// they are in place already, it leaves them alone.
func prove(f Freezer) error {
	st, err := f.State()
	if err != nil || st.Backend != "" {
		return err
	}
	return errors.Join(f.Prepare(0), f.Thaw())
}

// proveConns does the same for a ConnFreezer.
func proveConns(f ConnFreezer) error {
	frozen, _, err := f.Frozen()
	if err != nil || len(frozen) > 0 {
		return err
	}
	return errors.Join(f.Freeze(nil, time.Second), f.Thaw())
}
