// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// tableName is the name of the nftables table for a whole namespace's freeze. The
// table for an owner's connections is named after it and the owner. The name never
// changes, since the rules are found by it: by any version of this program, and
// also after CRIU has restored them with the rest of a namespace.
const tableName = "criu-netfreeze"

// answerTime limits the wait for the kernel to take a message, and to answer. It usually
// does both at once, but a kernel without nf_tables may not answer all messages of a
// batch, and Go waits for ever to send what the kernel has once refused with EAGAIN.
const answerTime = 5 * time.Second

// visitor is a namespace that functions can run in.
type visitor interface {
	Do(fn func() error) error
	String() string
}

// nftConn is a netlink socket in a namespace that stays open between batches.
type nftConn struct {
	ns visitor
	*nftables.Conn
	sock *netlink.Conn
}

// errWithoutNFT means that the kernel has no nf_tables, so that nothing can be
// frozen by it. After any other error, something may be.
var errWithoutNFT = code.New(code.NoBackend, "the kernel has no nf_tables (load that module, or use the back end iptables-legacy)")

// dialNFT opens a socket in ns. The error wraps errWithoutNFT if, and only if, the
// kernel's answer means that it has no nf_tables.
func dialNFT(ns visitor) (*nftConn, error) {
	c := &nftConn{ns: ns}
	if err := c.dial(); err != nil {
		return nil, err
	}
	if _, err := c.generation(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *nftConn) dial() error { return c.ns.Do(c.dialHere) }

// dialHere is dial for a caller who is in the namespace.
func (c *nftConn) dialHere() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(sock *netlink.Conn) error {
		c.sock = sock
		return nil
	}))
	if errors.Is(err, unix.EPROTONOSUPPORT) { // without nfnetlink (netlink_create in net/netlink/af_netlink.c)
		err = fmt.Errorf("%w: %w", errWithoutNFT, err)
	}
	if err != nil {
		return fmt.Errorf("open a netlink socket in %s: %w", c.ns, err)
	}
	c.Conn = conn
	return nil
}

// generation returns a number that changes with every change of any nftables rules
// in the namespace. The error wraps errWithoutNFT if there is no nf_tables.
func (c *nftConn) generation() (uint32, error) {
	gen, err := c.getGeneration(unix.NFNL_SUBSYS_NFTABLES)
	if err != nil {
		return 0, fmt.Errorf("ask for the generation of nftables' rules in %s: %w", c.ns, err)
	}
	return gen, nil
}

// getGeneration asks a subsystem of nfnetlink for its generation; only tests ask
// another one than nf_tables. If the kernel has no such subsystem, not even as a
// module, it answers any request for it with EINVAL (nfnetlink_rcv_msg in
// net/netfilter/nfnetlink.c). Most requests may get that answer for other reasons
// too, such as a bad attribute or a module that is being unloaded. This request
// has no attributes, and nf_tables itself never answers it with EINVAL
// (nf_tables_getgen in net/netfilter/nf_tables_api.c).
func (c *nftConn) getGeneration(subsystem uint16) (gen uint32, err error) {
	if err := c.sock.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return 0, err
	}
	answer, err := c.sock.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(subsystem<<8 | unix.NFT_MSG_GETGEN), Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}, // struct nfgenmsg
	})
	if errors.Is(err, unix.EINVAL) {
		return 0, fmt.Errorf("%w: %w", errWithoutNFT, err)
	}
	if err != nil {
		return 0, err
	}
	const headerLen = 4
	if len(answer) != 1 || len(answer[0].Data) < headerLen {
		return 0, code.New(code.FilterBusy, fmt.Sprintf("the kernel answered with %d messages, not with a generation", len(answer)))
	}
	attrs, err := netlink.NewAttributeDecoder(answer[0].Data[headerLen:])
	if err != nil {
		return 0, err
	}
	attrs.ByteOrder = binary.BigEndian
	for attrs.Next() {
		if attrs.Type() == unix.NFTA_GEN_ID {
			gen = attrs.Uint32()
		}
	}
	return gen, attrs.Err()
}

// consistent calls read, and calls it again if any rules changed meanwhile. The
// kernel sends a long list in parts, and an item may be missing from it if others
// are removed between two parts. The kernel marks such a list (NLM_F_DUMP_INTR),
// but package nftables hides the mark.
func (c *nftConn) consistent(read func() error) error {
	for deadline := time.Now().Add(answerTime); ; {
		before, err := c.generation()
		if err != nil {
			return err
		}
		if err := read(); err != nil {
			return err
		}
		switch after, err := c.generation(); {
		case err != nil || before == after:
			return err
		case time.Now().After(deadline):
			return code.New(code.FilterBusy, fmt.Sprintf("the nftables rules in %s kept changing for %s and could not be read in one piece (try again)",
				c.ns, answerTime))
		}
	}
}

// Close closes the socket in the background. close(2) waits until all tables are
// freed that anybody has deleted in the namespace, which takes some RCU grace
// periods or 5 to 50 ms (nft_rcv_nl_event in net/netfilter/nf_tables_api.c of the
// kernel): too long while a container is stopped. The only possible error is that
// the socket was closed before.
func (c *nftConn) Close() error {
	go c.CloseLasting() //nolint:errcheck // see above
	return nil
}

// commit sends the batch, of which the kernel applies everything or nothing. After
// a failure it replaces the socket, which may still hold answers to the batch.
func (c *nftConn) commit(what string) error {
	err := c.sock.SetDeadline(time.Now().Add(answerTime))
	if err == nil {
		err = c.Flush()
	}
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("%s in %s by nftables: %w", what, c.ns, err), c.Close(), c.dial())
}

// table returns the table with this name and family, or nil if there is none. It
// asks for this very table, since a list of all could lack it, see consistent.
func (c *nftConn) table(name string, family nftables.TableFamily) (*nftables.Table, error) {
	err := c.sock.SetDeadline(time.Now().Add(answerTime))
	if err == nil {
		var t *nftables.Table
		if t, err = c.ListTableOfFamily(name, family); err == nil {
			return t, nil
		}
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) { // the latter before Linux 4.16
		return nil, nil
	}
	return nil, fmt.Errorf("look for table %s in %s: %w", name, c.ns, err)
}

// chains returns all chains in the namespace.
func (c *nftConn) chains() (chains []*nftables.Chain, err error) {
	err = c.consistent(func() (err error) {
		chains, err = c.ListChains()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list nftables' chains in %s: %w", c.ns, err)
	}
	return chains, nil
}

// remove deletes the table called name with everything in it.
func (c *nftConn) remove(name string) error {
	return c.removeAll("delete table "+name, &nftables.Table{Name: name, Family: nftables.TableFamilyINet})
}

// removeAll deletes those of the tables that exist, all at the same moment.
func (c *nftConn) removeAll(what string, tables ...*nftables.Table) error {
	for deadline := time.Now().Add(answerTime); ; {
		there, err := c.existing(tables...)
		if err != nil || len(there) == 0 {
			return err
		}
		for _, t := range there {
			c.DelTable(t)
		}
		err = c.commit(what)
		// ENOENT means that somebody else was faster with one of them.
		if !errors.Is(err, unix.ENOENT) || time.Now().After(deadline) {
			return err
		}
	}
}

// existing returns those of the tables that exist.
func (c *nftConn) existing(tables ...*nftables.Table) (there []*nftables.Table, err error) {
	for _, ref := range tables {
		t, err := c.table(ref.Name, ref.Family)
		if err != nil {
			return nil, err
		}
		if t != nil {
			there = append(there, t)
		}
	}
	return there, nil
}

// replace adds an empty table called name to the batch, which replaces an existing
// one. If there is none, the batch deletes nothing, not even for good measure: it
// would keep the kernel busy for some RCU grace periods, and CRIU would have to
// wait for their end when it closes sockets while the network is frozen.
func (c *nftConn) replace(name string) (*nftables.Table, error) {
	t, err := c.table(name, nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	if t != nil {
		c.DelTable(t)
	}
	return c.CreateTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet}), nil
}

// baseChain adds a chain at a hook, with the policy accept, to the batch.
func (c *nftConn) baseChain(
	t *nftables.Table, name string, hook *nftables.ChainHook, prio *nftables.ChainPriority,
) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return c.AddChain(&nftables.Chain{
		Table: t, Name: name, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: prio, Policy: &accept,
	})
}

// setOf returns the set that form describes, in table t.
func setOf(t *nftables.Table, form *nftables.Set) *nftables.Set {
	s := *form
	s.Table = t
	return &s
}

// members returns the elements of a set and the time until the first of them
// expires. The kernel leaves out expired ones.
func (c *nftConn) members(t *nftables.Table, set *nftables.Set) ([]nftables.SetElement, time.Duration, error) {
	elems, err := c.GetSetElements(setOf(t, set))
	if err != nil {
		return nil, 0, fmt.Errorf("list set %s of table %s in %s: %w", set.Name, t.Name, c.ns, err)
	}
	var left time.Duration
	for _, e := range elems {
		if left == 0 || e.Expires < left {
			left = e.Expires
		}
	}
	return elems, left, nil
}
