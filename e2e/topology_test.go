//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// worlds counts them, so that each has its own names and addresses.
var worlds atomic.Int32

// world is a switch, a network namespace with a bridge, to which hosts are
// connected. It goes with the test.
type world struct {
	t     *testing.T
	n     int
	sw    string
	ports int
	hosts int
}

// host is an address on the world's network. The namespace that has it may
// change, as when a container is restored elsewhere.
type host struct {
	w     *world
	name  string
	mac   string
	v4    netip.Addr
	v6    netip.Addr
	port  int // of its server
	netns string
	moves int
	place string       // the switch's port that it is connected to
	hooks *specs.Hooks // connect it, where the runtime makes its namespace
}

// iface is each host's interface.
const iface = "eth0"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, n: int(worlds.Add(1))}
	w.sw = w.newNetns("switch")
	// No spanning tree and no snooping: a port works from its first moment.
	w.ip(w.sw, "link add br0 type bridge stp_state 0 mcast_snooping 0", "link set br0 up")
	return w
}

// newNetns makes a namespace that has its loopback up and nothing else.
func (w *world) newNetns(name string) string {
	w.t.Helper()
	name = fmt.Sprintf("w%d-%s", w.n, name)
	mustRun(w.t, "", "", "ip", "netns", "add", name)
	w.t.Cleanup(func() {
		// A test may have removed it already.
		if strings.Contains(mustRun(w.t, "", "", "ip", "netns", "list"), name) {
			w.removeNetns(name)
		}
	})
	w.ip(name, "link set lo up")
	return name
}

func (w *world) removeNetns(name string) {
	w.t.Helper()
	mustRun(w.t, "", "", "ip", "netns", "del", name)
}

// ip runs commands of the program ip in one go.
func (w *world) ip(netns string, lines ...string) {
	w.t.Helper()
	mustRun(w.t, netns, strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
}

// newHost makes a host in a namespace of its own, with an IPv4 and an IPv6
// address, and connects it.
func (w *world) newHost(name string) *host {
	w.t.Helper()
	h := w.describeHost(name)
	h.netns = w.newNetns(name)
	w.connect(h, h.netns)
	return h
}

// describeHost gives a host its addresses, and nothing more.
func (w *world) describeHost(name string) *host {
	w.hosts++
	at := func(format string) netip.Addr {
		return netip.MustParseAddr(fmt.Sprintf(format, w.n, w.hosts))
	}
	return &host{
		w: w, name: name, port: 7000,
		mac: fmt.Sprintf("02:00:00:00:%02x:%02x", w.n, w.hosts),
		v4:  at("10.88.%d.%d"),
		v6:  at("fd88:%x::%x"),
	}
}

// connect gives a namespace the host's interface, MAC and addresses, all live
// at once: no duplicate address detection, no link-local address.
func (w *world) connect(h *host, netns string) {
	w.t.Helper()
	w.ports++
	port := fmt.Sprintf("port%d", w.ports)
	h.place = port
	// Made under a name of its own where the other end goes to the lab's
	// namespace, which has room for the interfaces of several worlds.
	w.ip(w.sw,
		fmt.Sprintf("link add %s type veth peer name %s address %s netns %s", port, h.iface(netns), h.mac, netnsArg(netns)),
		fmt.Sprintf("link set %s master br0 addrgenmode none up", port))
	w.ip(netns,
		fmt.Sprintf("link set %s addrgenmode none", h.iface(netns)),
		fmt.Sprintf("addr add %s/24 dev %s", h.v4, h.iface(netns)),
		fmt.Sprintf("addr add %s/64 dev %s nodad", h.v6, h.iface(netns)),
		fmt.Sprintf("link set %s up", h.iface(netns)))
}

func (h *host) iface(netns string) string {
	if netns == "" {
		return fmt.Sprintf("w%d-%s", h.w.n, h.name)
	}
	return iface
}

// netnsArg is what the program ip wants for a namespace: a name, or a pid.
func netnsArg(netns string) string {
	if netns == "" {
		return "1"
	}
	return netns
}

// elsewhere makes the namespace that the host will live in next. What is
// called with it before it is connected is its birth.
func (h *host) elsewhere(birth func(netns string)) string {
	h.w.t.Helper()
	h.moves++
	next := h.w.newNetns(fmt.Sprintf("%s-%d", h.name, h.moves))
	birth(next)
	return next
}

// move takes the host to its next namespace; its former one is removed, in the
// order of a container network's plugins: first the interface, then the
// namespace. (The kernel takes the rules out of a dying namespace before its
// interfaces. A packet of the peer in between would be answered with RST.)
func (h *host) move(next string) {
	h.w.t.Helper()
	h.w.ip(h.w.sw, "link del "+h.place)
	h.w.removeNetns(h.netns)
	h.netns = next
	h.w.connect(h, next)
}
