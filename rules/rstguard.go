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

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// guardTable is the name of the guard's two tables, in the families inet and
// bridge. It cannot clash with the table of an owner of connections, whose name
// has no hyphen.
const guardTable = tableName + "-rst-guard"

// Guard drops TCP segments with RST that come from one address while the
// container with that address is moved. Besides the rules for a dumped tree's own
// connections, guards are the only rules that are ever put into the host's network
// namespace. Therefore they cannot be asked to do anything else: no other flag, no
// other direction, no network prefix, no unlimited time.
//
// The table of the family inet sees packets that are routed through the namespace
// or arrive for it (in prerouting, before connection tracking could see the RST
// and forget the connection) and packets that the namespace itself sends. The
// table of the family bridge sees frames that pass from port to port of a bridge
// in the namespace. Frames between two macvlan interfaces pass none of the host's
// hooks.
type Guard struct {
	Address netip.Addr    // the address that the RSTs come from
	Left    time.Duration // time until the kernel ends the guard
}

// guardFamilies lists the families of the tables and the hooks of each.
var guardFamilies = []struct {
	family   nftables.TableFamily
	hooks    []guardHook
	is4, is6 []expr.Any // match IPv4, IPv6
}{
	{
		nftables.TableFamilyINet,
		[]guardHook{{"prerouting", nftables.ChainHookPrerouting}, {"output", nftables.ChainHookOutput}},
		metaIs(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4}), metaIs(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV6}),
	},
	{
		nftables.TableFamilyBridge,
		[]guardHook{{"prerouting", nftables.ChainHookPrerouting}},
		etherType(unix.ETH_P_IP), etherType(unix.ETH_P_IPV6),
	},
}

type guardHook struct {
	name string
	hook *nftables.ChainHook
}

var (
	guarded4 = &nftables.Set{Name: "guarded4", ID: 1, KeyType: nftables.TypeIPAddr, HasTimeout: true}
	guarded6 = &nftables.Set{Name: "guarded6", ID: 2, KeyType: nftables.TypeIP6Addr, HasTimeout: true}
)

// tcpRST is a TCP flag like tcpSYN.
const tcpRST = 0x04

// GuardAddress guards addr in ns for ttl; if it is guarded already, its time to
// live starts again. This needs nftables with the family bridge. Only one caller
// at a time may use the guards of a namespace, so the caller must hold the
// namespace's lock.
func GuardAddress(ns *netns.Namespace, addr netip.Addr, ttl time.Duration) error {
	addr = addr.Unmap()
	if !addr.IsGlobalUnicast() || addr.Zone() != "" {
		return code.New(code.Usage, fmt.Sprintf("guard %s in %s: not an address that one container can have", addr, ns))
	}
	if err := CheckTTL(ttl); err != nil {
		return fmt.Errorf("guard %s in %s: %w", addr, ns, err)
	}
	return changeGuards(ns, fmt.Sprintf("guard %s", addr), func(all []Guard) []Guard {
		all = slices.DeleteFunc(all, func(g Guard) bool { return g.Address == addr })
		return append(all, Guard{addr, ttl})
	})
}

// Unguard ends the guard of addr in ns. It is no error if there is none.
func Unguard(ns *netns.Namespace, addr netip.Addr) error {
	addr = addr.Unmap()
	return changeGuards(ns, fmt.Sprintf("end the guard of %s", addr), func(all []Guard) []Guard {
		return slices.DeleteFunc(all, func(g Guard) bool { return g.Address == addr })
	})
}

// Guards returns the guards in force in ns, the next one to end first. If there
// are none left, it removes the tables.
func Guards(ns *netns.Namespace) ([]Guard, error) {
	var all []Guard
	err := changeGuards(ns, "list guards", func(now []Guard) []Guard {
		all = slices.Clone(now)
		return now
	})
	if errors.Is(err, errWithoutNFT) {
		return nil, nil
	}
	slices.SortFunc(all, func(a, b Guard) int { return int(a.Left - b.Left) })
	return all, err
}

// changeGuards replaces the guards by what change returns for them. The tables of
// both families change at the same moment, and exist only as long as there are
// guards.
func changeGuards(ns *netns.Namespace, what string, change func([]Guard) []Guard) (err error) {
	c, err := dialNFT(ns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	tables, before, err := c.guards()
	if err != nil {
		return err
	}
	after := change(slices.Clone(before))
	if slices.Equal(before, after) && (len(after) > 0 || len(tables) == 0) {
		return nil
	}
	for _, t := range tables {
		c.DelTable(t)
	}
	if len(after) > 0 {
		if err := c.addGuards(after); err != nil {
			return fmt.Errorf("%s in %s: %w", what, ns, err)
		}
	}
	err = c.commit(what)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return code.Wrap(code.Kernel, fmt.Errorf("%w (a guard needs nf_tables with the families inet and bridge in the kernel)", err))
	}
	return err
}

// guards returns the guard's tables and the guards in them.
func (c *nftConn) guards() (tables []*nftables.Table, all []Guard, err error) {
	for _, f := range guardFamilies {
		t, err := c.table(guardTable, f.family)
		if err != nil {
			return nil, nil, err
		}
		if t == nil {
			continue
		}
		tables = append(tables, t)
		if len(tables) > 1 {
			continue // both tables hold the same guards
		}
		for _, set := range []*nftables.Set{guarded4, guarded6} {
			elems, _, err := c.members(t, set)
			if err != nil {
				return nil, nil, err
			}
			for _, e := range elems {
				if addr, ok := netip.AddrFromSlice(e.Key); ok {
					all = append(all, Guard{addr, e.Expires})
				}
			}
		}
	}
	return tables, all, nil
}

// addGuards adds the tables to the batch. The IDs of sets must be unique in the
// batch, whereas their names need to be unique only in a table.
func (c *nftConn) addGuards(all []Guard) error {
	for i, f := range guardFamilies {
		t := c.AddTable(&nftables.Table{Name: guardTable, Family: f.family})
		set4, set6 := setOf(t, guarded4), setOf(t, guarded6)
		for _, s := range []*nftables.Set{set4, set6} {
			s.ID += uint32(2 * i)
			if err := c.AddSet(s, guardElements(all, s)); err != nil {
				return err
			}
		}
		for _, h := range f.hooks {
			ch := c.baseChain(t, h.name, h.hook, nftables.ChainPriorityRaw)
			c.rule(ch, "RST from an address that moves", resetFrom(f.is4, ip4, set4), drop())
			c.rule(ch, "RST from an address that moves", resetFrom(f.is6, ip6, set6), drop())
		}
	}
	return nil
}

// guardElements returns the addresses of a set's family as its elements.
func guardElements(all []Guard, s *nftables.Set) (elems []nftables.SetElement) {
	for _, g := range all {
		if key := g.Address.AsSlice(); len(key) == int(s.KeyType.Bytes) {
			elems = append(elems, nftables.SetElement{Key: key, Timeout: lasting(g.Left)})
		}
	}
	return elems
}

// resetFrom matches TCP segments with RST whose source address is in the set.
// is4or6 matches the IP family.
func resetFrom(is4or6 []expr.Any, ip ipHeader, s *nftables.Set) []expr.Any {
	match := append(isTCP(),
		transport(tcpFlagsOffset, 1, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{tcpRST}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{tcpRST}})
	match = append(match, is4or6...)
	return append(match, network(ip.source, ip.addr.Bytes, 1), lookup(s))
}

// etherType matches frames by the protocol that they carry. This is how the family
// bridge tells IPv4 from IPv6.
func etherType(t uint16) []expr.Any {
	return metaIs(expr.MetaKeyPROTOCOL, binary.BigEndian.AppendUint16(nil, t))
}
