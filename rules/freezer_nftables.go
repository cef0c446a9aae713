// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// nftFreezer is the nftables Freezer. Its rules drop packets of the IP families
// that are in a set. The elements of the set have a time-out, by which the kernel
// itself ends a freeze. Every change is one batch, which the kernel applies at one
// moment, so that no packet ever sees half of a table. The first batch replaces
// the whole table, whatever was there before; after that, a freeze changes only
// the sets. Sealing empties the set of families whose marked packets pass, and adds
// a table for packet sockets, see dropPacketSockets.
type nftFreezer struct {
	conn    *nftConn
	ours    bool // this Freezer made the table, which may have been removed since
	windows nftWindows
}

// The sets of the table. The IDs tell them apart within one batch.
var (
	frozenSet = &nftables.Set{Name: "frozen", ID: 1, KeyType: nftables.TypeNFProto, HasTimeout: true}
	synSet    = &nftables.Set{Name: "syn", ID: 2, KeyType: nftables.TypeNFProto, HasTimeout: true}
	markedSet = &nftables.Set{Name: "marked", ID: 3, KeyType: nftables.TypeNFProto} // whose packets with Mark pass
)

// wholeTable refers to the table, to change it when it exists.
var wholeTable = &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}

func openNFT(ns *netns.Isolated) (Freezer, error) {
	conn, err := dialNFT(ns)
	if err != nil {
		return nil, err
	}
	return &nftFreezer{conn: conn, windows: nftWindows{conn: conn}}, nil
}

func (f *nftFreezer) Backend() backend.Kind { return backend.NFTables }

func (f *nftFreezer) Prepare(holdSYN time.Duration) error {
	st, err := f.State()
	if err != nil {
		return err
	}
	return f.put("prepare a freeze", st.Left, holdSYN)
}

func (f *nftFreezer) Freeze(ttl time.Duration) error {
	if err := CheckTTL(ttl); err != nil {
		return err
	}
	if f.ours && f.arm(ttl) == nil {
		return nil
	}
	return f.put("freeze", ttl, 0)
}

// arm fills the set of a table that exists. It empties the set first, because
// before Linux 6.12 an element that is added again keeps its old time-out. Usually
// the set is empty, so that the kernel has nothing to delete (see replace); this is
// also why the set for SYNs is left alone.
func (f *nftFreezer) arm(ttl time.Duration) error {
	frozen := setOf(wholeTable, frozenSet)
	f.conn.FlushSet(frozen)
	// Somebody else may have sealed what we prepared. It is no error if the elements exist.
	err := errors.Join(f.conn.SetAddElements(frozen, families(lasting(ttl))),
		f.conn.SetAddElements(setOf(wholeTable, markedSet), families(0)))
	if err != nil {
		return err
	}
	return f.conn.commit("freeze")
}

// Seal makes the next freeze replace the table, and thereby end the seal.
func (f *nftFreezer) Seal(pass uint32) error {
	st, err := f.State()
	if err == nil && !st.Frozen {
		err = ErrNotFrozen
	}
	if err != nil {
		return fmt.Errorf("seal %s: %w", f.conn.ns, err)
	}
	f.ours = false
	if err := f.conn.seal(wholeTable, pass); err != nil {
		return err
	}
	return f.conn.dropPacketSockets(st.Left, pass)
}

// Lift empties the sets, which is far less work than deleting the table. The table
// for packet sockets is there only if somebody else has sealed this freeze.
func (f *nftFreezer) Lift() error {
	if !f.ours {
		return f.Thaw()
	}
	packets, err := f.conn.existing(packetTable)
	if err != nil {
		return errors.Join(err, f.Thaw())
	}
	for _, t := range packets {
		f.conn.DelTable(t)
	}
	f.conn.FlushSet(setOf(wholeTable, frozenSet))
	f.conn.FlushSet(setOf(wholeTable, synSet))
	f.windows.flush(wholeTable)
	if err := f.conn.commit("lift the freeze"); err != nil {
		return f.Thaw() // perhaps somebody else removed the table
	}
	return nil
}

func (f *nftFreezer) Thaw() error {
	f.ours, f.windows.sets = false, false
	return f.conn.thaw()
}

func (f *nftFreezer) Close() error { return f.conn.Close() }

// put replaces the table by one that drops everything for the duration frozen and
// new connections for the duration syn; either may be 0. The freeze is not sealed,
// even if it was.
func (f *nftFreezer) put(what string, frozen, syn time.Duration) error {
	c := f.conn
	packets, err := c.existing(packetTable)
	if err != nil {
		return err
	}
	t, err := c.replace(tableName)
	if err != nil {
		return err
	}
	for _, t := range packets {
		c.DelTable(t)
	}
	frozenFor, err := c.protoSet(t, frozenSet, frozen)
	if err != nil {
		return fmt.Errorf("%s in %s: %w", what, c.ns, err)
	}
	synFor, err := c.protoSet(t, synSet, syn)
	if err != nil {
		return fmt.Errorf("%s in %s: %w", what, c.ns, err)
	}
	marked, err := c.markedSet(t)
	if err != nil {
		return fmt.Errorf("%s in %s: %w", what, c.ns, err)
	}
	in := c.baseChain(t, "prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	out := c.baseChain(t, outputChain, nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	for _, ch := range []*nftables.Chain{in, out} {
		c.passMarked(ch, marked)
		c.passNeighbours(ch, metaIs(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV6}))
		c.rule(ch, "frozen", protoIn(frozenFor), drop())
	}
	// The family comes last: nft cannot parse what it prints itself if the family
	// comes before the protocol, and CRIU restores a namespace's rules from that.
	c.rule(in, "new connections wait", isTCP(), opensConnection(), protoIn(synFor), drop())
	err = c.commit(what)
	f.ours = err == nil
	if f.ours {
		f.windows.sets = false
	}
	return err
}

// protoSet adds a set to the batch that contains both IP families for the duration
// d. It is empty if d is 0.
func (c *nftConn) protoSet(t *nftables.Table, form *nftables.Set, d time.Duration) (*nftables.Set, error) {
	s := setOf(t, form)
	var elems []nftables.SetElement
	if d > 0 {
		elems = families(lasting(d))
	}
	return s, c.AddSet(s, elems)
}

// lasting returns d as the time-out of a set element. The kernel counts in
// milliseconds, and 0 would mean for ever.
func lasting(d time.Duration) time.Duration { return max(d, time.Millisecond) }

// families returns both IP families as set elements that the kernel removes after
// d, or never if d is 0.
func families(d time.Duration) []nftables.SetElement {
	return []nftables.SetElement{
		{Key: []byte{unix.NFPROTO_IPV4}, Timeout: d},
		{Key: []byte{unix.NFPROTO_IPV6}, Timeout: d},
	}
}

func (f *nftFreezer) State() (State, error) { return f.conn.state() }

// state returns what the tables do to the whole namespace. Somebody may have removed
// one of them alone, so it is frozen as long as either of them drops anything.
func (c *nftConn) state() (State, error) {
	st, err := c.wholeState()
	if err != nil || st.Frozen {
		return st, err
	}
	t, err := c.table(tableName, nftables.TableFamilyNetdev)
	if err != nil || t == nil {
		return st, err
	}
	devices, left, err := c.members(t, deviceSet)
	if err != nil {
		return State{}, err
	}
	st.Backend = backend.NFTables
	if len(devices) > 0 {
		st.Frozen, st.Left, st.SYNHeld = true, left, false
	}
	return st, nil
}

// wholeState is state without the table for packet sockets.
func (c *nftConn) wholeState() (State, error) {
	t, err := c.table(tableName, nftables.TableFamilyINet)
	if err != nil || t == nil {
		return State{}, err
	}
	st := State{Backend: backend.NFTables}
	frozen, left, err := c.members(t, frozenSet)
	if err != nil {
		return State{}, err
	}
	if st.Frozen = len(frozen) > 0; st.Frozen {
		st.Left = left
	}
	syn, _, err := c.members(t, synSet)
	if err != nil {
		return State{}, err
	}
	st.SYNHeld = len(syn) > 0 && !st.Frozen
	return st, nil
}
