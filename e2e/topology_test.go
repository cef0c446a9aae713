// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/delay"
)

// topologies counts the topologies, so that each has its own names and addresses.
// The first ones' are used again after maxTopologies: they have been removed by then.
var topologies atomic.Int32

const maxTopologies = 250

// topology is a switch (a network namespace with a bridge) and the hosts that
// are connected to it. It is removed at the end of the test.
type topology struct {
	t           *testing.T
	n           int
	switchNetns string
	ports       int
	hosts       int
}

// host is an address on the topology's network. The namespace that has the
// address may change, as when a container is restored elsewhere.
type host struct {
	topo       *topology
	name       string
	mac        string
	v4         netip.Addr
	v6         netip.Addr
	port       int // that its server listens on
	netns      string
	pidNS      string // path of the pid namespace for its containers, "" for one of their own
	moves      int
	switchPort string       // the bridge port that it is connected to
	hooks      *specs.Hooks // connect it, if the runtime creates its namespace
}

// iface is the name of each host's interface.
const iface = "eth0"

func newTopology(t *testing.T) *topology {
	t.Helper()
	topo := &topology{t: t, n: int(topologies.Add(1)-1)%maxTopologies + 1}
	topo.switchNetns = topo.newNetns("switch")
	// No spanning tree and no snooping: a port forwards from its first moment.
	topo.ip(topo.switchNetns, "link add br0 type bridge stp_state 0 mcast_snooping 0", "link set br0 up")
	return topo
}

// newNetns creates a namespace in which only the loopback interface is up.
func (topo *topology) newNetns(name string) string {
	topo.t.Helper()
	name = fmt.Sprintf("t%d-%s", topo.n, name)
	mustRun(topo.t, "", "", "ip", "netns", "add", name)
	topo.t.Cleanup(func() {
		// The test may have removed it already.
		if strings.Contains(mustRun(topo.t, "", "", "ip", "netns", "list"), name) {
			topo.removeNetns(name)
		}
	})
	topo.ip(name, "link set lo up")
	return name
}

func (topo *topology) removeNetns(name string) {
	topo.t.Helper()
	mustRun(topo.t, "", "", "ip", "netns", "del", name)
}

// ip runs a batch of ip(8) commands in a namespace.
func (topo *topology) ip(netns string, lines ...string) {
	topo.t.Helper()
	mustRun(topo.t, netns, strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
}

// newHost creates a host in a namespace of its own, with an IPv4 and an IPv6
// address, and connects it.
func (topo *topology) newHost(name string) *host {
	topo.t.Helper()
	h := topo.describeHost(name)
	h.netns = topo.newNetns(name)
	topo.connect(h, h.netns)
	return h
}

// newFarHost creates a host as newHost does, at the other end of a wire that takes a time
// each way.
func (topo *topology) newFarHost(name string, oneWay time.Duration) *host {
	topo.t.Helper()
	h := topo.describeHost(name)
	way := topo.newNetns(name + "-way")
	h.netns = topo.newNetns(name)
	topo.join(h, way, "near", "")
	topo.ip(way, fmt.Sprintf("link add far type veth peer name %s address %s netns %s", iface, h.mac, h.netns),
		"link set near addrgenmode none up", "link set far addrgenmode none up")
	topo.configure(h, h.netns)
	if err := within(way, func() error {
		wire, err := delay.New("near", "far", oneWay)
		if err == nil {
			topo.t.Cleanup(func() { _ = wire.Close() })
		}
		return err
	}); err != nil {
		topo.t.Fatal(err)
	}
	return h
}

// describeHost returns a host that has its addresses, but no namespace yet.
func (topo *topology) describeHost(name string) *host {
	topo.hosts++
	at := func(format string) netip.Addr {
		return netip.MustParseAddr(fmt.Sprintf(format, topo.n, topo.hosts))
	}
	return &host{
		topo: topo, name: name, port: 7000,
		mac: fmt.Sprintf("02:00:00:00:%02x:%02x", topo.n, topo.hosts),
		v4:  at("10.88.%d.%d"),
		v6:  at("fd88:%x::%x"),
	}
}

// connect gives a namespace the host's interface, MAC address and IP addresses.
func (topo *topology) connect(h *host, netns string) {
	topo.t.Helper()
	// An end that goes to the lab's own namespace gets a name of its own: the
	// interfaces of several topologies meet there.
	topo.join(h, netns, h.iface(netns), h.mac)
	topo.configure(h, netns)
}

// join connects a new interface of a namespace to the bridge: the host's port. Without a
// MAC address the interface gets any.
func (topo *topology) join(h *host, netns, name, mac string) {
	topo.t.Helper()
	topo.ports++
	h.switchPort = fmt.Sprintf("port%d", topo.ports)
	if mac != "" {
		mac = "address " + mac
	}
	topo.ip(topo.switchNetns,
		fmt.Sprintf("link add %s type veth peer name %s %s netns %s", h.switchPort, name, mac, netnsArg(netns)),
		fmt.Sprintf("link set %s master br0 addrgenmode none up", h.switchPort))
}

// configure makes the host's interface usable at once: no duplicate address detection, no
// link-local address.
func (topo *topology) configure(h *host, netns string) {
	topo.t.Helper()
	topo.ip(netns,
		fmt.Sprintf("link set %s addrgenmode none", h.iface(netns)),
		fmt.Sprintf("addr add %s/24 dev %s", h.v4, h.iface(netns)),
		fmt.Sprintf("addr add %s/64 dev %s nodad", h.v6, h.iface(netns)),
		fmt.Sprintf("link set %s up", h.iface(netns)))
}

func (h *host) iface(netns string) string {
	if netns == "" {
		return fmt.Sprintf("t%d-%s", h.topo.n, h.name)
	}
	return iface
}

// netnsArg returns what ip(8) takes for a namespace: a name, or a pid.
func netnsArg(netns string) string {
	if netns == "" {
		return "1"
	}
	return netns
}

// nextNetns creates the namespace that the host will move to next, and calls
// birth with it, before it is connected.
func (h *host) nextNetns(birth func(netns string)) string {
	h.topo.t.Helper()
	h.moves++
	next := h.topo.newNetns(fmt.Sprintf("%s-%d", h.name, h.moves))
	birth(next)
	return next
}

// move moves the host to its next namespace and removes the former one, in the
// order that CNI plugins follow: first the interface, then the namespace. (The
// kernel removes the rules of a dying namespace before its interfaces; a packet
// from the peer in between would be answered with an RST.)
func (h *host) move(next string) {
	h.topo.t.Helper()
	h.topo.ip(h.topo.switchNetns, "link del "+h.switchPort)
	h.topo.removeNetns(h.netns)
	h.netns = next
	h.topo.connect(h, next)
}
