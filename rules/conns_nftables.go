// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// nftConns is the nftables ConnFreezer. Its table has one set of connections for
// each IP family, as their owner sees them. Like an nftFreezer's table, it is
// replaced as a whole. Only if this nftConns made it a moment ago are just the
// missing connections added.
type nftConns struct {
	conn    *nftConn
	name    string // of the table
	windows nftWindows

	put   tcp.Set       // the connections that this nftConns put into the table,
	since time.Time     // when it made the table,
	ttl   time.Duration // and for how long; 0 if it is not known to exist
}

// recently is the fraction of its time to live during which a freeze counts as
// just made. Replacing an element takes about 10 µs; it is not worth doing that
// 10,000 times only to have the freeze end a hundredth later.
const recently = 100

// ipHeader gives the offsets of the addresses in an IP header, in bytes (RFC 791,
// section 3.1, and RFC 8200, section 3).
type ipHeader struct {
	proto        byte // NFPROTO_IPV4 or NFPROTO_IPV6
	addr         nftables.SetDatatype
	source, dest uint32
}

var (
	ip4 = ipHeader{unix.NFPROTO_IPV4, nftables.TypeIPAddr, 12, 16}
	ip6 = ipHeader{unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 8, 24}

	conns4 = connSet("conns4", 1, ip4)
	conns6 = connSet("conns6", 2, ip6)
)

// afterNAT is a priority in the input hook by which the kernel has undone all
// address translation, including that of sources (at priority 100). A segment has
// the same addresses there as its socket.
var afterNAT = nftables.ChainPriorityConntrackHelper

// connSet describes a set whose elements are a local address, local port, remote
// address and remote port.
func connSet(name string, id uint32, ip ipHeader) *nftables.Set {
	return &nftables.Set{
		Name: name, ID: id, HasTimeout: true, Concatenation: true,
		KeyType: nftables.MustConcatSetType(ip.addr, nftables.TypeInetService, ip.addr, nftables.TypeInetService),
	}
}

func openNFTConns(ns *netns.Namespace, owner string) (ConnFreezer, error) {
	conn, err := dialNFT(ns)
	if err != nil {
		return nil, err
	}
	return &nftConns{conn: conn, name: tableName + "-" + owner, windows: nftWindows{conn: conn}}, nil
}

func (f *nftConns) Backend() backend.Kind { return backend.NFTables }

func (f *nftConns) Freeze(conns []tcp.Tuple, ttl time.Duration) error {
	if err := CheckTTL(ttl); err != nil {
		return err
	}
	if ttl == f.ttl && time.Since(f.since) < ttl/recently {
		if done, err := f.extend(conns); done || err != nil {
			return err
		}
	}
	before, _, err := f.Frozen()
	if err != nil {
		return err
	}
	all, err := MergeConns(before, conns)
	if err != nil {
		return err
	}
	if err := f.add(all, ttl); err != nil {
		return fmt.Errorf("freeze %d connections in %s: %w", len(all), f.conn.ns, err)
	}
	f.ttl = 0 // until the kernel has confirmed it
	began := time.Now()
	if err := f.conn.commit(fmt.Sprintf("freeze %d connections", len(all))); err != nil {
		return err
	}
	f.put, f.since, f.ttl = tcp.SetOf(all), began, ttl
	f.windows.sets = false
	return nil
}

// extend adds those connections to the table that are not in it yet. done is false
// if the table was removed by somebody else.
func (f *nftConns) extend(conns []tcp.Tuple) (done bool, err error) {
	more, err := MergeConns(nil, conns)
	if err != nil {
		return false, err
	}
	more = slices.DeleteFunc(more, f.put.Has)
	t, err := f.conn.table(f.name, nftables.TableFamilyINet)
	if err != nil || t == nil {
		return false, err
	}
	if len(more) == 0 {
		return true, nil
	}
	elems4, elems6 := elements(more, f.ttl)
	err = errors.Join(f.conn.addElements(t, conns4, elems4), f.conn.addElements(t, conns6, elems6), f.conn.makeRoom(len(more)))
	if err == nil {
		err = f.conn.commit(fmt.Sprintf("freeze %d more connections", len(more)))
	}
	if err != nil {
		return false, err
	}
	for _, t := range more {
		f.put[t] = struct{}{}
	}
	return true, nil
}

// add adds the whole table to the batch.
func (f *nftConns) add(conns []tcp.Tuple, ttl time.Duration) error {
	elems4, elems6 := elements(conns, ttl)
	c := f.conn
	t, err := c.replace(f.name)
	if err != nil {
		return err
	}
	set4, err4 := c.connSet(t, conns4, elems4)
	set6, err6 := c.connSet(t, conns6, elems6)
	if err := errors.Join(err4, err6, c.makeRoom(len(conns))); err != nil {
		return err
	}
	marked, err := c.markedSet(t)
	if err != nil {
		return err
	}
	in := c.baseChain(t, "input", nftables.ChainHookInput, afterNAT)
	out := c.baseChain(t, outputChain, nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	c.passMarked(in, marked)
	c.rule(in, "frozen connections, arriving", connIn(ip4, set4, arriving), drop())
	c.rule(in, "frozen connections, arriving", connIn(ip6, set6, arriving), drop())
	c.passMarked(out, marked)
	c.rule(out, "frozen connections, leaving", connIn(ip4, set4, leaving), drop())
	c.rule(out, "frozen connections, leaving", connIn(ip6, set6, leaving), drop())
	return nil
}

// elements returns the connections of each IP family as set elements, which the
// kernel removes after ttl.
func elements(conns []tcp.Tuple, ttl time.Duration) (elems4, elems6 []nftables.SetElement) {
	for _, t := range conns {
		e := nftables.SetElement{Key: connKey(t), Timeout: lasting(ttl)}
		if t.Is4() {
			elems4 = append(elems4, e)
		} else {
			elems6 = append(elems6, e)
		}
	}
	return elems4, elems6
}

func (f *nftConns) Seal(pass uint32) error {
	frozen, _, err := f.Frozen()
	if err != nil || len(frozen) == 0 {
		return err
	}
	f.ttl = 0 // the next freeze replaces the table, and thereby ends the seal
	return f.conn.seal(&nftables.Table{Name: f.name, Family: nftables.TableFamilyINet}, pass)
}

func (f *nftConns) Thaw() error {
	f.ttl, f.windows.sets = 0, false
	return f.conn.remove(f.name)
}

func (f *nftConns) Frozen() ([]tcp.Tuple, time.Duration, error) {
	t, err := f.conn.table(f.name, nftables.TableFamilyINet)
	if err != nil || t == nil {
		return nil, 0, err
	}
	elems, left, err := f.conn.members(t, conns4)
	if err != nil {
		return nil, 0, err
	}
	elems6, left6, err := f.conn.members(t, conns6)
	if err != nil {
		return nil, 0, err
	}
	if left == 0 || left6 > 0 && left6 < left {
		left = left6
	}
	var conns []tcp.Tuple
	for _, e := range append(elems, elems6...) {
		conn, err := keyConn(e.Key)
		if err != nil {
			return nil, 0, fmt.Errorf("read table %s in %s: %w", f.name, f.conn.ns, err)
		}
		conns = append(conns, conn)
	}
	return conns, left, nil
}

func (f *nftConns) Close() error { return f.conn.Close() }

// elemsPerMessage keeps the attribute with the set elements, of at most 64 bytes
// each, below the 64 KiB that its length field can hold.
const elemsPerMessage = 512

// connSet adds a set with its elements to the batch.
func (c *nftConn) connSet(t *nftables.Table, form *nftables.Set, elems []nftables.SetElement) (*nftables.Set, error) {
	s := setOf(t, form)
	if err := c.AddSet(s, nil); err != nil {
		return nil, err
	}
	return s, c.addElements(t, form, elems)
}

// addElements adds elements to the batch, for a set that exists or is in the batch.
func (c *nftConn) addElements(t *nftables.Table, form *nftables.Set, elems []nftables.SetElement) error {
	s := setOf(t, form)
	for part := range slices.Chunk(elems, elemsPerMessage) {
		if err := c.SetAddElements(s, part); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom makes the socket's send buffer large enough for a batch with n
// elements, which has to be sent in one piece.
func (c *nftConn) makeRoom(n int) error {
	const rest, perElem = 64 << 10, 80
	if err := c.sock.SetWriteBuffer(rest + n*perElem); err != nil {
		return fmt.Errorf("enlarge the send buffer for %d set elements: %w", n, err)
	}
	return nil
}

// direction is whether packets come from the local or from the remote end.
type direction bool

const (
	leaving  direction = false
	arriving direction = true
)

// connIn matches TCP segments whose connection is in the set. It loads the parts of
// the key into consecutive 32-bit registers; the first of them is also the
// beginning of register 1.
func connIn(ip ipHeader, s *nftables.Set, d direction) []expr.Any {
	const portLen, portRegs, sport, dport = 2, 1, 0, 2
	local, lport, remote, rport := ip.source, uint32(sport), ip.dest, uint32(dport)
	if d == arriving {
		local, lport, remote, rport = remote, rport, local, lport
	}
	reg := uint32(unix.NFT_REG32_00)
	addrRegs := ip.addr.Bytes / 4
	match := append(metaIs(expr.MetaKeyNFPROTO, []byte{ip.proto}), isTCP()...)
	return append(match,
		network(local, ip.addr.Bytes, reg),
		transport(lport, portLen, reg+addrRegs),
		network(remote, ip.addr.Bytes, reg+addrRegs+portRegs),
		transport(rport, portLen, reg+2*addrRegs+portRegs),
		lookup(s),
	)
}

// connKey returns a connection as the key of a set element: addresses and ports in
// network byte order, each port padded to 4 bytes.
func connKey(t tcp.Tuple) []byte {
	var key []byte
	for _, side := range []netip.AddrPort{t.Local, t.Remote} {
		key = append(key, side.Addr().AsSlice()...)
		key = binary.BigEndian.AppendUint16(key, side.Port())
		key = append(key, 0, 0)
	}
	return key
}

// keyConn is the inverse of connKey.
func keyConn(key []byte) (tcp.Tuple, error) {
	const portLen = 4
	half := len(key) / 2
	if len(key) != 2*(4+portLen) && len(key) != 2*(16+portLen) {
		return tcp.Tuple{}, code.New(code.FilterBusy, fmt.Sprintf("a set element of %d bytes is not a connection", len(key)))
	}
	side := func(b []byte) netip.AddrPort {
		n := len(b) - portLen
		addr, _ := netip.AddrFromSlice(b[:n])
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[n:]))
	}
	return tcp.Tuple{Local: side(key[:half]), Remote: side(key[half:])}, nil
}
