package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tableName is the nftables table of a whole namespace's freeze, and with an
// owner behind it that of connections. It never changes: it is how the rules
// are found again, by any version and after CRIU restored them with the rest
// of a namespace.
const tableName = "criu-netfreeze"

// answerTime is how long the kernel may take to answer. It answers at once; a
// kernel without nf_tables may not answer all messages of a batch.
const answerTime = 5 * time.Second

// visitor is a namespace that can be entered.
type visitor interface {
	Do(fn func() error) error
	String() string
}

// nftConn is a netlink socket in a namespace, kept open from one batch to the
// next.
type nftConn struct {
	ns visitor
	*nftables.Conn
	sock *netlink.Conn
}

// errWithoutNFT says that the kernel has no nf_tables, so that nothing can be
// frozen by it. Any other error leaves that open.
var errWithoutNFT = errors.New("the kernel has no nf_tables (load that module, or use the back end iptables-legacy)")

// dialNFT opens a socket in ns. The error wraps errWithoutNFT if, and only if, the
// kernel says that it has no nf_tables.
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

func (c *nftConn) dial() error {
	return c.ns.Do(func() error {
		conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(sock *netlink.Conn) error {
			c.sock = sock
			return nil
		}))
		if errors.Is(err, unix.EPROTONOSUPPORT) { // no nfnetlink at all (netlink_create in net/netlink/af_netlink.c)
			err = fmt.Errorf("%w: %w", errWithoutNFT, err)
		}
		if err != nil {
			return fmt.Errorf("open a netlink socket in %s: %w", c.ns, err)
		}
		c.Conn = conn
		return nil
	})
}

// generation returns a number that is another one after each change of any rules
// in the namespace. The error wraps errWithoutNFT if there is no nf_tables.
func (c *nftConn) generation() (uint32, error) {
	gen, err := c.getGeneration(unix.NFNL_SUBSYS_NFTABLES)
	if err != nil {
		return 0, fmt.Errorf("ask for the generation of nftables' rules in %s: %w", c.ns, err)
	}
	return gen, nil
}

// getGeneration asks a subsystem of nfnetlink, which all but tests take to be
// nf_tables. A request for a subsystem that is not there, and that no module
// brings, is answered by EINVAL (nfnetlink_rcv_msg in net/netfilter/nfnetlink.c).
// Other requests get that answer for other reasons too, such as a bad attribute or
// a module that is about to leave. This one has no attributes and nf_tables never
// answers it so (nf_tables_getgen in net/netfilter/nf_tables_api.c).
func (c *nftConn) getGeneration(subsystem uint16) (gen uint32, err error) {
	if err := c.sock.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
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
		return 0, fmt.Errorf("%d messages instead of one generation", len(answer))
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

// consistent calls read, again if rules changed meanwhile. The kernel hands out a
// long list in parts, and what has moved between two parts may be missing from
// both. It marks such a list (NLM_F_DUMP_INTR), but package nftables does not pass
// the mark on.
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
			return fmt.Errorf("nftables' rules in %s change all the time and could not be read for %s", c.ns, answerTime)
		}
	}
}

// Close closes the socket and does not wait for it. A close(2) lasts until all
// tables are gone that were deleted before, by anybody in the namespace, and so
// some RCU grace periods, 5 to 50 ms (nft_rcv_nl_event in the kernel's
// net/netfilter/nf_tables_api.c): too long while a container is stopped. An
// error would mean that the socket was closed before.
func (c *nftConn) Close() error {
	go c.CloseLasting() //nolint:errcheck // see above
	return nil
}

// commit sends what was added to the batch; the kernel applies all or nothing.
// After a failure the socket may still hold answers to the failed batch, so it
// is replaced.
func (c *nftConn) commit(what string) error {
	err := c.sock.SetReadDeadline(time.Now().Add(answerTime))
	if err == nil {
		err = c.Flush()
	}
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("%s in %s by nftables: %w", what, c.ns, err), c.Close(), c.dial())
}

// table returns a table by its name and family, or nil where there is none. It
// asks for this one: a list of all could lack it, see consistent.
func (c *nftConn) table(name string, family nftables.TableFamily) (*nftables.Table, error) {
	err := c.sock.SetReadDeadline(time.Now().Add(answerTime))
	if err == nil {
		var t *nftables.Table
		if t, err = c.ListTableOfFamily(name, family); err == nil {
			return t, nil
		}
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) { // before Linux 4.16 it could lack a family
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

// remove deletes the table called name with all that is in it.
func (c *nftConn) remove(name string) error {
	t, err := c.table(name, nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	if t == nil {
		return nil
	}
	c.DelTable(t)
	err = c.commit("delete table " + name)
	if errors.Is(err, unix.ENOENT) { // somebody else was faster
		return nil
	}
	return err
}

// replace adds an empty table called name to the batch, in the place of one
// that may be there. Where there is none nothing is deleted, not even for good
// measure: the kernel would be busy with that for some RCU grace periods, and
// CRIU, which closes sockets in the frozen time, would have to wait for their
// end.
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

// baseChain adds a chain at a hook to the batch. Its policy is to accept.
func (c *nftConn) baseChain(t *nftables.Table, name string, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return c.AddChain(&nftables.Chain{
		Table: t, Name: name, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: prio, Policy: &accept,
	})
}

// setOf returns the set of a table that has this form.
func setOf(t *nftables.Table, form *nftables.Set) *nftables.Set {
	s := *form
	s.Table = t
	return &s
}

// members returns a set's elements and the time left to the first of them to
// go. The kernel leaves out those whose time is over.
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
