// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netlinksafe"
)

// packetTable refers to the table that stops packet sockets. It is there only while
// a freeze is sealed. No dump finds it in the namespace, because Prepare removes it,
// so CRIU never has to restore it.
var packetTable = &nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev}

// deviceSet has the names of the interfaces on which nothing may be sent. It has no
// IP families, as the kernel does not tell them apart in a table of this family.
var deviceSet = &nftables.Set{Name: "frozen", ID: 1, KeyType: nftables.TypeIFName, HasTimeout: true, KeyByteOrder: binaryutil.NativeEndian}

// egressHook is NF_NETDEV_EGRESS, which packets pass right before an interface's
// queue, those of packet sockets included, even with PACKET_QDISC_BYPASS
// (packet_direct_xmit in net/packet/af_packet.c). AF_XDP sockets bypass it
// (xsk_generic_xmit in net/xdp/xsk.c).
var egressHook = nftables.ChainHookEgress

// markedSet adds the set of families whose packets with Mark pass, with both
// families in it, to the batch.
func (c *nftConn) markedSet(t *nftables.Table) (*nftables.Set, error) {
	s := setOf(t, markedSet)
	return s, c.AddSet(s, families(0))
}

// seal empties that set, and lets nothing pass but answers with the mark pass.
func (c *nftConn) seal(t *nftables.Table, pass uint32) error {
	if err := c.passAnswers(t, pass); err != nil {
		return err
	}
	c.FlushSet(setOf(t, markedSet))
	err := c.commit("seal")
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w (rules of an older version cannot be sealed; freeze again first)", err)
	}
	return err
}

// thaw deletes the tables of a whole namespace's freeze.
func (c *nftConn) thaw() error {
	return c.removeAll("delete the tables "+tableName, wholeTable, packetTable)
}

// dropPacketSockets drops, for the duration left, all frames that leave on an
// interface of the namespace, except ARP and IPv6 neighbour discovery. What is sent
// on a loopback interface arrives there, and is dropped then. Answers with the mark pass
// leave, unless it is 0.
func (c *nftConn) dropPacketSockets(left time.Duration, pass uint32) error {
	if err := c.putPacketTable(left, pass); err != nil {
		return fmt.Errorf("seal %s: %w: %w", c.ns, ErrPacketSockets, err)
	}
	return nil
}

func (c *nftConn) putPacketTable(left time.Duration, pass uint32) error {
	var devices []string
	err := c.ns.Do(func() error {
		links, err := netlinksafe.LinkList()
		for _, l := range links {
			if l.Attrs().Flags&net.FlagLoopback == 0 {
				devices = append(devices, l.Attrs().Name)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list the interfaces: %w", err)
	}
	before, err := c.existing(packetTable)
	if err != nil {
		return err
	}
	for _, t := range before {
		c.DelTable(t)
	}
	if len(devices) > 0 {
		if err := c.addPacketTable(devices, left, pass); err != nil {
			return err
		}
	}
	return c.commit("stop packet sockets")
}

func (c *nftConn) addPacketTable(devices []string, left time.Duration, pass uint32) error {
	t, frozen := c.CreateTable(packetTable), setOf(packetTable, deviceSet)
	var elems []nftables.SetElement
	for _, name := range devices {
		key := make([]byte, unix.IFNAMSIZ)
		copy(key, name)
		elems = append(elems, nftables.SetElement{Key: key, Timeout: lasting(left)})
	}
	if err := c.AddSet(frozen, elems); err != nil {
		return err
	}
	answers := setOf(t, answerSet)
	if pass != 0 {
		if err := c.AddSet(answers, markElement(pass)); err != nil {
			return err
		}
	}
	policy := nftables.ChainPolicyAccept
	for i, name := range devices {
		// The chain is not named after the interface, whose name nft may be unable to parse.
		ch := c.AddChain(&nftables.Chain{
			Table: t, Name: fmt.Sprint("egress", i), Type: nftables.ChainTypeFilter, Hooknum: egressHook,
			Priority: nftables.ChainPriorityFilter, Policy: &policy, Device: name,
		})
		if pass != 0 {
			c.rule(ch, answersPass, isAnswer(answers, ethernetLen+answerLen), accept())
		}
		c.passNeighbours(ch, frameOf(unix.ETH_P_IPV6))
		c.rule(ch, "ARP", frameOf(unix.ETH_P_ARP), accept())
		c.rule(ch, "frozen", []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, lookup(frozen)}, drop())
	}
	return nil
}

// frameOf matches Ethernet frames by the type in their header. That a packet
// socket's packets are of some protocol is only what their sender says.
func frameOf(etherType uint16) []expr.Any {
	const offset, length = 12, 2
	return []expr.Any{
		&expr.Payload{
			OperationType: expr.PayloadLoad, Base: expr.PayloadBaseLLHeader,
			Offset: offset, Len: length, DestRegister: 1,
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, etherType)},
	}
}
