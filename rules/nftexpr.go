// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// The TCP flags in byte 13 of the header, and the window after them (RFC 9293, section 3.1).
const (
	tcpFlagsOffset  = 13
	tcpSYN          = 0x02
	tcpACK          = 0x10
	tcpWindowOffset = 14
)

// outputChain is the name of the chain that leaving packets pass, in the table of a whole
// namespace's freeze and in those of connections.
const outputChain = "output"

// The ICMPv6 types of neighbour discovery (RFC 4861, sections 4.3 and 4.4).
const (
	neighbourSolicitation  = 135
	neighbourAdvertisement = 136
)

// rule adds a rule to the batch, at the end of a chain.
func (c *nftConn) rule(ch *nftables.Chain, comment string, parts ...[]expr.Any) {
	c.AddRule(ruleOf(ch, comment, parts...))
}

// ruleOf returns a rule of a chain.
func ruleOf(ch *nftables.Chain, comment string, parts ...[]expr.Any) *nftables.Rule {
	r := &nftables.Rule{
		Table: ch.Table, Chain: ch,
		UserData: userdata.AppendString(nil, userdata.TypeComment, comment),
	}
	for _, p := range parts {
		r.Exprs = append(r.Exprs, p...)
	}
	return r
}

// passMarked adds a rule that lets CRIU's own packets through if their IP family is
// in the set. As everywhere, the family comes last; see nftFreezer.put.
func (c *nftConn) passMarked(ch *nftables.Chain, marked *nftables.Set) {
	c.rule(ch, "CRIU's own packets",
		metaIs(expr.MetaKeyMARK, binaryutil.NativeEndian.PutUint32(Mark)), protoIn(marked), accept())
}

// passNeighbours adds a rule that lets IPv6 neighbour discovery through. isIPv6
// matches IPv6, which differs between families of tables.
func (c *nftConn) passNeighbours(ch *nftables.Chain, isIPv6 []expr.Any) {
	c.rule(ch, "neighbour discovery",
		isIPv6,
		metaIs(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_ICMPV6}),
		[]expr.Any{
			transport(0, 1, 1),
			&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{neighbourSolicitation}},
			&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{neighbourAdvertisement}},
		}, accept())
}

// metaIs matches packets for which one of the kernel's meta values is value.
func metaIs(key expr.MetaKey, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value},
	}
}

// protoIn matches packets whose IP family is in the set.
func protoIn(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, lookup(s)}
}

// lookup matches if the key that was loaded into register 1 and following is in the set.
func lookup(s *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}
}

// isTCP matches TCP segments.
func isTCP() []expr.Any { return metaIs(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_TCP}) }

// opensConnection matches TCP segments with SYN and without ACK; they must be known to be TCP.
func opensConnection() []expr.Any {
	return []expr.Any{
		transport(tcpFlagsOffset, 1, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{tcpSYN | tcpACK}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{tcpSYN}},
	}
}

// transport loads bytes of the header that follows the IP header.
func transport(offset, length, register uint32) expr.Any {
	return &expr.Payload{
		OperationType: expr.PayloadLoad, Base: expr.PayloadBaseTransportHeader,
		Offset: offset, Len: length, DestRegister: register,
	}
}

// network loads bytes of the IP header.
func network(offset, length, register uint32) expr.Any {
	return &expr.Payload{
		OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader,
		Offset: offset, Len: length, DestRegister: register,
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }
