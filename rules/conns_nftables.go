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
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// nftConns is the nftables ConnFreezer. Its table has one set of connections
// per IP family, seen from their owner's side. It is replaced as a whole, like
// an nftFreezer's, unless this very nftConns put it there a moment ago: then
// only what is missing is added.
type nftConns struct {
	conn *nftConn
	name string // the table's

	put   map[tcp.Tuple]bool // what the table has, as far as we know
	since time.Time          // when it was put there,
	ttl   time.Duration      // for how long
}

// recently is the part of its time to live within which a freeze counts as
// just made. It is not worth replacing 10,000 elements, which takes 10 µs for
// each one, to have them end a hundredth later.
const recently = 100

// ipHeader is where addresses stand in an IP header, in bytes (RFC 791, section
// 3.1, and RFC 8200, section 3).
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

// afterNAT is late enough in the input hook that the kernel has undone every
// address translation (of sources too, at priority 100): a segment has the
// addresses there that its socket knows.
var afterNAT = nftables.ChainPriorityConntrackHelper

// connSet is the form of a set of local address, local port, remote address
// and remote port.
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
	return &nftConns{conn: conn, name: tableName + "-" + owner}, nil
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
	f.ttl = 0 // until it is known that it worked
	began := time.Now()
	if err := f.conn.commit(fmt.Sprintf("freeze %d connections", len(all))); err != nil {
		return err
	}
	f.put, f.since, f.ttl = make(map[tcp.Tuple]bool, len(all)), began, ttl
	for _, t := range all {
		f.put[t] = true
	}
	return nil
}

// extend adds those connections to the table that it has not yet. It is not
// done if somebody removed the table.
func (f *nftConns) extend(conns []tcp.Tuple) (done bool, err error) {
	more, err := MergeConns(nil, conns)
	if err != nil {
		return false, err
	}
	more = slices.DeleteFunc(more, func(t tcp.Tuple) bool { return f.put[t] })
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
		f.put[t] = true
	}
	return true, nil
}

// add puts the whole table into the batch.
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
	in := c.baseChain(t, "input", nftables.ChainHookInput, afterNAT)
	out := c.baseChain(t, "output", nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	c.passMarked(in)
	c.rule(in, "frozen connections, arriving", connIn(ip4, set4, arriving), drop())
	c.rule(in, "frozen connections, arriving", connIn(ip6, set6, arriving), drop())
	c.passMarked(out)
	c.rule(out, "frozen connections, leaving", connIn(ip4, set4, leaving), drop())
	c.rule(out, "frozen connections, leaving", connIn(ip6, set6, leaving), drop())
	return nil
}

// elements makes set elements of connections, for each IP family, that the
// kernel removes after ttl.
func elements(conns []tcp.Tuple, ttl time.Duration) (elems4, elems6 []nftables.SetElement) {
	for _, t := range conns {
		e := nftables.SetElement{Key: connKey(t), Timeout: max(ttl, time.Millisecond)} // the kernel's unit
		if t.Is4() {
			elems4 = append(elems4, e)
		} else {
			elems6 = append(elems6, e)
		}
	}
	return elems4, elems6
}

func (f *nftConns) Thaw() error {
	f.ttl = 0
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

// elemsPerMessage keeps a message's attribute with set elements, 64 bytes each
// at most, below the 64 KiB that its length field can express.
const elemsPerMessage = 512

// connSet adds a set with its elements to the batch.
func (c *nftConn) connSet(t *nftables.Table, form *nftables.Set, elems []nftables.SetElement) (*nftables.Set, error) {
	s := setOf(t, form)
	if err := c.AddSet(s, nil); err != nil {
		return nil, err
	}
	return s, c.addElements(t, form, elems)
}

// addElements adds elements to the batch, for a set that is there or in it.
func (c *nftConn) addElements(t *nftables.Table, form *nftables.Set, elems []nftables.SetElement) error {
	s := setOf(t, form)
	for part := range slices.Chunk(elems, elemsPerMessage) {
		if err := c.SetAddElements(s, part); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom makes the socket's send buffer big enough for a batch with n
// elements: the kernel takes a batch in one piece or not at all.
func (c *nftConn) makeRoom(n int) error {
	const rest, perElem = 64 << 10, 80
	if err := c.sock.SetWriteBuffer(rest + n*perElem); err != nil {
		return fmt.Errorf("enlarge the send buffer for %d set elements: %w", n, err)
	}
	return nil
}

// direction tells whether a packet's source is the remote or the local side.
type direction bool

const (
	leaving  direction = false
	arriving direction = true
)

// connIn matches TCP segments whose connection is in the set. The parts of the
// key are loaded into consecutive 32-bit registers, of which the first one is
// also the beginning of register 1.
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

// connKey is a connection as a set element: addresses and ports in network byte
// order, each port filled up to 4 bytes.
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
		return tcp.Tuple{}, fmt.Errorf("a set element of %d bytes is not a connection", len(key))
	}
	side := func(b []byte) netip.AddrPort {
		n := len(b) - portLen
		addr, _ := netip.AddrFromSlice(b[:n])
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[n:]))
	}
	return tcp.Tuple{Local: side(key[:half]), Remote: side(key[half:])}, nil
}
