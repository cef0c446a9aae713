// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Target says whether a checkpoint could be restored in a network namespace now.
type Target struct {
	NetNS      string    `json:"netns"`
	Restorable bool      `json:"restorable"` // no finding is in the way
	Findings   []Finding `json:"findings"`
}

// Finding is one thing about the namespace.
type Finding struct {
	Code     string `json:"code,omitempty"` // such as NF501
	Blocks   bool   `json:"blocks"`         // the restore would fail
	Text     string `json:"text"`
	Remedy   string `json:"remedy,omitempty"`
	codeOnly code.Code
}

// Err returns the error that a checkpoint could not be restored in the namespace, with
// the code of the first finding in the way; nil if it could.
func (t *Target) Err() error {
	n, first := 0, code.Code(0)
	for _, f := range t.Findings {
		if f.Blocks {
			if n++; n == 1 {
				first = f.codeOnly
			}
		}
	}
	if n == 0 {
		return nil
	}
	return code.New(first, fmt.Sprintf("the checkpoint cannot be restored in %s now: %s in the way", t.NetNS, count(n, "finding")))
}

// Check compares what the checkpoint needs with what is in a namespace, which it does not
// change, and keeps the result in c.Target. What it looks at is what a restore with
// criu-netfreeze looks at before it begins.
func (c *Checkpoint) Check(ns *netns.Namespace) error {
	t := &Target{NetNS: ns.String(), Findings: []Finding{}}
	if err := c.check(ns, t); err != nil {
		return code.Any(fmt.Errorf("compare with %s: %w", ns, err))
	}
	t.Restorable = t.Err() == nil
	c.Target = t
	return nil
}

func (t *Target) blocks(c code.Code, text, remedy string) {
	t.Findings = append(t.Findings, Finding{Code: c.String(), Blocks: true, Text: text, Remedy: remedy, codeOnly: c})
}

func (t *Target) remark(text, remedy string) {
	t.Findings = append(t.Findings, Finding{Text: text, Remedy: remedy})
}

func (c *Checkpoint) check(ns *netns.Namespace, t *Target) error {
	if c.Needs.NetNS == netnsNames[criuimg.Dumped] {
		t.remark("the images have a network namespace of their own, from which CRIU makes a new one", "to restore here all the same, use CRIU's option join-ns")
	}
	if err := c.checkAddresses(ns, t); err != nil {
		return err
	}
	var socks []tcp.Socket
	var links []netlink.Link
	err := ns.Do(func() (err error) {
		if socks, err = tcp.List(); err != nil || len(c.Needs.Interfaces) == 0 {
			return err
		}
		links, err = netlink.LinkList()
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range c.Needs.Interfaces {
		if !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == name }) {
			t.blocks(code.NoAddress, fmt.Sprintf("the interface %s is missing, to which sockets are bound", name), "give an interface that name: ip link set IFACE name "+name)
		}
	}
	c.checkConnections(ns, socks, t)
	return c.checkPorts(ns, socks, t)
}

// checkAddresses finds the missing addresses. CRIU refuses to bind a connection without
// its address, and a listening socket of IPv4; those of IPv6 it binds all the same (with
// IPV6_FREEBIND, inet_bind in criu/sk-inet.c).
func (c *Checkpoint) checkAddresses(ns *netns.Namespace, t *Target) error {
	missing, err := ns.Missing(c.Needs.Addresses)
	if err != nil {
		return err
	}
	for _, a := range missing {
		conns, listeners := 0, 0
		for _, conn := range c.Connections {
			if conn.Local.Addr() == a {
				conns++
			}
		}
		for _, l := range c.Listening {
			if l.Local.Addr().Unmap() == a {
				listeners++
			}
		}
		text := fmt.Sprintf("the address %s is missing, of %s", a, users(conns, listeners))
		remedy := fmt.Sprintf("give the restored container the address that the dumped one had: ip addr add %s/PREFIX dev IFACE", a)
		if c.prefix(a) != "" {
			remedy = strings.Replace(remedy, a.String()+"/PREFIX", c.prefix(a), 1)
		}
		if conns == 0 && a.Is6() {
			t.remark(text+"; CRIU restores them without it", remedy)
			continue
		}
		t.blocks(code.NoAddress, text, remedy)
	}
	return nil
}

// users names how many sockets are bound to an address.
func users(conns, listeners int) string {
	switch {
	case listeners == 0:
		return count(conns, "connection")
	case conns == 0:
		return count(listeners, "listening socket")
	}
	return count(conns, "connection") + " and " + count(listeners, "listening socket")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// prefix returns an address with the length of its prefix, if the engine has noted that.
func (c *Checkpoint) prefix(a netip.Addr) string {
	for _, i := range c.Origin.Interfaces {
		for _, text := range i.Addresses {
			if p, err := netip.ParsePrefix(text); err == nil && p.Addr() == a {
				return p.String()
			}
		}
	}
	return ""
}

// checkConnections finds sockets with the same two ends.
func (c *Checkpoint) checkConnections(ns *netns.Namespace, socks []tcp.Socket, t *Target) {
	coming := make(tcp.Set, len(c.Connections))
	for _, conn := range c.Connections {
		coming[tcp.NewTuple(conn.Local, conn.Remote)] = struct{}{}
	}
	for _, s := range tcp.Colliding(socks, coming) {
		switch {
		case s.Orphan():
			t.remark(fmt.Sprintf("something is left of the connection %s, which no process owns", s.Tuple),
				"nothing, if the restore is done with criu-netfreeze, which removes it; otherwise wait until it is gone")
		case s.Inode == 0:
			t.blocks(code.InQueue, fmt.Sprintf("the connection %s waits in a listening queue, for a process there to accept it", s.Tuple),
				"end that process, or wait until it has")
		default:
			t.blocks(code.StillOpen, fmt.Sprintf("the connection %s is still open: a process there owns it", s.Tuple), owner(ns))
		}
	}
}

// owner says how to end the tree that most likely owns a connection in the way.
func owner(ns *netns.Namespace) string {
	records, _ := record.Of(ns) // without them the general remedy is left
	for _, r := range records {
		// CRIU may have ended a moment ago: then its settler is about to hold the tree.
		held := r.Phase == record.Held || r.Phase == record.Committed && r.Policy == "hold"
		if held && r.Alive() {
			return fmt.Sprintf("%s: end it silently with netfreeze kill %s", r.DescribeHold(), r.ThawTarget())
		}
	}
	return "end the dumped tasks first"
}
