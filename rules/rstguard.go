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

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// guardTable is the name of the guard's tables, one of the family inet and one
// of the family bridge. No owner of connections can have it: an owner's name
// has no hyphen.
const guardTable = tableName + "-rst-guard"

// Guard drops TCP segments with RST that come from an address while what has
// the address moves. It is the only thing that is ever put into the host's
// network namespace without being about a dumped tree's own connections, so
// there is nothing else that it could be asked for: no other flag, no other
// direction, no network prefix, no time without end.
//
// The family inet sees what is routed through the namespace, what arrives for
// it (both in prerouting, before connection tracking would note the RST and
// forget the connection) and what it sends itself. The family bridge sees what
// goes from port to port of a bridge in the namespace. What goes between two
// macvlan interfaces passes no hook of the host's at all.
type Guard struct {
	Address netip.Addr
	Left    time.Duration // until the kernel ends it
}

// guardFamilies are the families of the tables, and the hooks of each.
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

// tcpRST is a flag, see tcpSYN.
const tcpRST = 0x04

// GuardAddress guards addr in ns for ttl, counted anew if it is guarded already.
// It needs nftables with the family bridge. Two callers must not change guards
// of one namespace at the same time (state.LockNetNS).
func GuardAddress(ns *netns.Namespace, addr netip.Addr, ttl time.Duration) error {
	addr = addr.Unmap()
	if !addr.IsGlobalUnicast() || addr.Zone() != "" {
		return fmt.Errorf("guard %s in %s: it is not an address that one container can have", addr, ns)
	}
	if err := CheckTTL(ttl); err != nil {
		return fmt.Errorf("guard %s in %s: %w", addr, ns, err)
	}
	return changeGuards(ns, fmt.Sprintf("guard %s", addr), func(all []Guard) []Guard {
		all = slices.DeleteFunc(all, func(g Guard) bool { return g.Address == addr })
		return append(all, Guard{addr, ttl})
	})
}

// Unguard ends the guard of addr in ns. That there is none is fine.
func Unguard(ns *netns.Namespace, addr netip.Addr) error {
	addr = addr.Unmap()
	return changeGuards(ns, fmt.Sprintf("end the guard of %s", addr), func(all []Guard) []Guard {
		return slices.DeleteFunc(all, func(g Guard) bool { return g.Address == addr })
	})
}

// Guards returns the guards in force in ns, the next one to end first, and
// takes the rules away when there are none left.
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

// changeGuards replaces the guards by what change makes of them. The rules of
// both families change at the same moment, and are there only while somebody
// is guarded.
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
		return fmt.Errorf("%w (a guard needs nf_tables with the families inet and bridge in the kernel)", err)
	}
	return err
}

// guards returns the guard's tables and the guards that are in them.
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
			continue // both hold the same
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

// addGuards puts the tables into the batch. IDs of sets have to differ within
// it, names only within a table.
func (c *nftConn) addGuards(all []Guard) error {
	for i, f := range guardFamilies {
		t := c.AddTable(&nftables.Table{Name: guardTable, Family: f.family})
		set4, set6 := setOf(t, guarded4), setOf(t, guarded6)
		for _, s := range []*nftables.Set{set4, set6} {
			s.ID += uint32(2 * i) //nolint:gosec // 0 or 2
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

// guardElements are the addresses that are of a set's family.
func guardElements(all []Guard, s *nftables.Set) (elems []nftables.SetElement) {
	for _, g := range all {
		if key := g.Address.AsSlice(); len(key) == int(s.KeyType.Bytes) {
			elems = append(elems, nftables.SetElement{Key: key, Timeout: max(g.Left, time.Millisecond)})
		}
	}
	return elems
}

// resetFrom matches TCP segments with RST whose source is in the set. is4or6
// matches the IP family.
func resetFrom(is4or6 []expr.Any, ip ipHeader, s *nftables.Set) []expr.Any {
	match := append(isTCP(),
		transport(tcpFlagsOffset, 1, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{tcpRST}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{tcpRST}})
	match = append(match, is4or6...)
	return append(match, network(ip.source, ip.addr.Bytes, 1), lookup(s))
}

// etherType matches frames by what they carry. Packets of the family bridge
// have no other IP family.
func etherType(t uint16) []expr.Any {
	return metaIs(expr.MetaKeyPROTOCOL, binary.BigEndian.AppendUint16(nil, t))
}
