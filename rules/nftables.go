package rules

import (
	"errors"
	"fmt"
	"slices"
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

// dialNFT opens a socket in ns and makes sure that the kernel has nf_tables.
func dialNFT(ns visitor) (*nftConn, error) {
	c := &nftConn{ns: ns}
	if err := c.dial(); err != nil {
		return nil, err
	}
	if _, err := c.table(tableName); err != nil {
		return nil, errors.Join(fmt.Errorf("ask for nftables' tables in %s (is nf_tables in the kernel?): %w", ns, err), c.Close())
	}
	return c, nil
}

func (c *nftConn) dial() error {
	return c.ns.Do(func() error {
		conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(sock *netlink.Conn) error {
			c.sock = sock
			return nil
		}))
		if err != nil {
			return fmt.Errorf("open a netlink socket in %s: %w", c.ns, err)
		}
		c.Conn = conn
		return nil
	})
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

// table returns the inet table called name, or nil where there is none.
func (c *nftConn) table(name string) (*nftables.Table, error) {
	if err := c.sock.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == name })
	if i < 0 {
		return nil, nil
	}
	return tables[i], nil
}

// remove deletes the table called name with all that is in it.
func (c *nftConn) remove(name string) error {
	t, err := c.table(name)
	if err != nil {
		return fmt.Errorf("look for table %s in %s: %w", name, c.ns, err)
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
	t, err := c.table(name)
	if err != nil {
		return nil, fmt.Errorf("look for table %s in %s: %w", name, c.ns, err)
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
