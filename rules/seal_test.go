// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// TestSeal promises that packets with CRIU's mark pass a freeze only until it is
// sealed, and again once it is frozen anew, and that a sealed freeze is lifted and
// thawed like any other.
func TestSeal(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			a, b := nstest.Pair(t)
			local := []string{serve(t, a, "127.0.0.1"), serve(t, a, "::1")}
			l, seen := mustDial(t, a, serve(t, b, nstest.B4)), watch(t, b)
			f, other := open(t, a, k), open(t, a, k)

			marked := func(when string, pass bool) {
				t.Helper()
				l.stuck(t)
				packets(t, seen)
				for _, addr := range local {
					c, err := dial(a, addr, Mark)
					if (err == nil) != pass {
						t.Errorf("%s: a marked connection to %s: %v", when, addr, err)
					}
					if err == nil {
						must(t, c.Close())
					}
				}
				for _, addr := range []string{nstest.B4, nstest.B6} {
					_, _ = dial(a, net.JoinHostPort(addr, "9"), Mark) // its answer is not marked
				}
				if p := packets(t, seen); len(p) > 0 != pass {
					t.Errorf("%s: of marked packets, the peer sees %v", when, p)
				}
				st, err := f.State()
				must(t, err)
				checkState(t, when, st, State{Backend: k, Frozen: true, Left: time.Minute})
			}
			must(t, f.Freeze(time.Minute))
			marked("frozen", true)
			must(t, other.Seal(0)) // as another process would
			must(t, f.Seal(0))
			marked("sealed twice", false)
			must(t, f.Freeze(time.Minute))
			marked("frozen anew", true)
			must(t, f.Seal(0))
			must(t, other.Prepare(0))
			marked("prepared anew", true)

			for what, end := range map[string]func() error{"Lift": f.Lift, "Thaw": f.Thaw, "another's Lift": other.Lift} {
				must(t, f.Freeze(time.Minute))
				must(t, f.Seal(0))
				l.stuck(t)
				must(t, end())
				st, err := Look(a)
				must(t, err)
				if st.Frozen {
					t.Errorf("after %s of a sealed freeze: %+v", what, st)
				}
				l.passes(t)
			}
		})
	}
}

// TestLiftSealedByAnother promises that a freeze is lifted although somebody else has
// sealed it since.
func TestLiftSealedByAnother(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			a, b := nstest.Pair(t)
			l := mustDial(t, a, serve(t, b, nstest.B6))
			f := open(t, a, k)
			must(t, f.Freeze(time.Minute))
			must(t, open(t, a, k).Seal(0))
			must(t, f.Freeze(time.Minute))
			must(t, open(t, a, k).Seal(0))
			l.stuck(t)
			must(t, f.Lift())
			l.passes(t)
		})
	}
}

// TestSealNeedsFreeze promises that nobody is told that a seal is in force where
// nothing is frozen.
func TestSealNeedsFreeze(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			f, c := open(t, ns, k), openConns(t, ns, k, "x")
			must(t, c.Seal(0))
			for _, before := range []func() error{
				f.Thaw,
				func() error { return f.Prepare(time.Minute) },
				func() error { return errors.Join(f.Freeze(time.Minute), f.Lift()) },
			} {
				must(t, before())
				if err := f.Seal(0); !errors.Is(err, ErrNotFrozen) {
					t.Errorf("sealing what is not frozen: %v", err)
				}
			}
		})
	}
}

// TestSealConns promises the same of single connections: a connection whose packets
// are marked, in both directions, is frozen only once it is sealed.
func TestSealConns(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			addr := serve(t, ns, "127.0.0.1")
			l, err := dial(ns, addr, Mark)
			must(t, err)
			free := mustDial(t, ns, addr)
			f := openConns(t, ns, k, "x")
			must(t, f.Freeze([]tcp.Tuple{tupleOf(l)}, time.Minute))
			for range 2 {
				l.passes(t)
				must(t, openConns(t, ns, k, "x").Seal(0)) // as another process would
				must(t, f.Seal(0))
				l.stuck(t)
				free.passes(t)
				checkConns(t, f, tupleOf(l))
				must(t, f.Freeze(nil, time.Minute))
			}
			must(t, f.Seal(0))
			must(t, f.Thaw())
			l.passes(t)
		})
	}
}

// TestSealFails promises that everything stays frozen, for as long as before, if it
// cannot be sealed.
func TestSealFails(t *testing.T) {
	t.Parallel()
	for _, k := range []backend.Kind{backend.IPTablesNFT, backend.IPTablesLegacy} {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			l := mustDial(t, ns, serve(t, ns, "127.0.0.1"))
			f, c := open(t, ns, k).(*iptFreezer), openConns(t, ns, k, "x").(*iptConns)
			conn := tuple("[::1]:1", "[::1]:2")
			must(t, f.Freeze(time.Minute))
			must(t, c.Freeze([]tcp.Tuple{conn}, time.Minute))
			f.tools[1].restore, c.tools[1].restore = "/bin/false", "/bin/false"
			if err := f.Seal(0); err == nil {
				t.Error("a program failed, and Seal did not")
			}
			if err := c.Seal(0); err == nil {
				t.Error("a program failed, and Seal of connections did not")
			}
			l.stuck(t)
			st, err := f.State()
			must(t, err)
			checkState(t, "State", st, State{Backend: k, Frozen: true, Left: time.Minute})
			checkConns(t, c, conn)
		})
	}
}

// frame is an Ethernet frame that a process with CAP_NET_RAW sends on a packet socket.
type frame struct {
	name      string
	etherType uint16
	says      uint16 // the protocol that the sender says it is
	bypass    bool   // the queueing discipline, by PACKET_QDISC_BYPASS
	payload   []byte
	passes    bool // a sealed freeze
}

var frames = []frame{
	{name: "IPv4", etherType: unix.ETH_P_IP, says: unix.ETH_P_IP, payload: []byte{0x45, 32: 0}},
	{name: "IPv6", etherType: unix.ETH_P_IPV6, says: unix.ETH_P_IPV6, payload: []byte{0x60, 6: unix.IPPROTO_TCP, 60: 0}},
	{name: "IPv4 past the queue", etherType: unix.ETH_P_IP, says: unix.ETH_P_IP, bypass: true, payload: []byte{0x45, 32: 0}},
	{name: "IPv4 called ARP", etherType: unix.ETH_P_IP, says: unix.ETH_P_ARP, payload: []byte{0x45, 32: 0}},
	{name: "IPv6 called ARP", etherType: unix.ETH_P_IPV6, says: unix.ETH_P_ARP, payload: []byte{0x60, 6: unix.IPPROTO_TCP, 60: 0}},
	{name: "IPv4 in a VLAN", etherType: unix.ETH_P_8021Q, says: unix.ETH_P_8021Q, payload: []byte{0, 1, 8, 0, 0x45, 36: 0}},
	{name: "experimental", etherType: 0x88b5, says: 0x88b5, payload: make([]byte, 40)},
	{name: "echo request", etherType: unix.ETH_P_IPV6, says: unix.ETH_P_IPV6, payload: []byte{0x60, 5: 64, 6: unix.IPPROTO_ICMPV6, 40: 128, 103: 0}},
	{name: "ARP", etherType: unix.ETH_P_ARP, says: unix.ETH_P_ARP, payload: make([]byte, 28), passes: true},
	{
		name: "solicitation", etherType: unix.ETH_P_IPV6, says: unix.ETH_P_IPV6,
		payload: []byte{0x60, 5: 64, 6: unix.IPPROTO_ICMPV6, 40: neighbourSolicitation, 103: 0}, passes: true,
	},
}

// send sends f from eth0 of ns to all.
func (f frame) send(ns *netns.Namespace) error {
	return ns.Do(func() (err error) {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unix.Close(fd)) }()
		if f.bypass {
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
				return err
			}
		}
		data := slices.Concat(bytes.Repeat([]byte{0xff}, 6), eth0.HardwareAddr)
		data = binary.BigEndian.AppendUint16(data, f.etherType)
		data = slices.Concat(data, f.payload, []byte(f.name))
		says := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, f.says))
		err = unix.Sendto(fd, data, 0, &unix.SockaddrLinklayer{Protocol: says, Ifindex: eth0.Index})
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOBUFS) { // dropped
			err = nil
		}
		return err
	})
}

// arrived sends all frames from ns and returns the names of those that arrive at seen.
func arrived(t *testing.T, ns *netns.Namespace, seen *os.File) (names []string) {
	t.Helper()
	for _, f := range frames {
		must(t, f.send(ns))
	}
	must(t, seen.SetReadDeadline(time.Now().Add(quiet)))
	for buf := make([]byte, 2048); ; {
		n, err := seen.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return names
		}
		must(t, err)
		for _, f := range frames {
			if bytes.HasSuffix(buf[:n], append(f.payload[len(f.payload)-1:], f.name...)) {
				names = append(names, f.name)
			}
		}
	}
}

// TestSealPacketSockets promises that what packet sockets send does not leave a
// sealed namespace, until it is thawed or the kernel ends the freeze.
func TestSealPacketSockets(t *testing.T) {
	t.Parallel()
	a, b := nstest.Pair(t)
	nstest.Run(t, a, "ip", "link", "add", "0+odd@name", "type", "veth", "peer", "name", "other")
	seen, k := watch(t, b), backend.NFTables
	f := open(t, a, k)
	expect := func(when string, all bool) {
		t.Helper()
		var want []string
		for _, f := range frames {
			if all || f.passes {
				want = append(want, f.name)
			}
		}
		if got := arrived(t, a, seen); !slices.Equal(got, want) {
			t.Errorf("%s: %q arrive, want %q", when, got, want)
		}
	}
	isolated, err := a.Isolate()
	must(t, err)
	for what, end := range map[string]func() error{
		"Lift": f.Lift, "Thaw": f.Thaw, "ThawAll": func() error { return ThawAll(isolated) },
		"Freeze": func() error { return f.Freeze(time.Minute) }, "Prepare": func() error { return f.Prepare(0) },
	} {
		must(t, f.Freeze(time.Minute))
		expect("frozen", true)
		must(t, f.Seal(0))
		must(t, f.Seal(0))
		expect("sealed", false)
		must(t, end())
		expect("after "+what, true)
	}
	const ttl = 2 * time.Second
	must(t, f.Freeze(ttl))
	must(t, f.Seal(0))
	expect("sealed for some time", false)
	eventually(t, "the end of the freeze", func() bool {
		st, err := f.State()
		must(t, err)
		return !st.Frozen
	})
	expect("after the freeze has ended", true)
}

// TestSealWithoutEgress promises that the mark is sealed where packet sockets cannot
// be, and that the caller is told.
func TestSealWithoutEgress(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	addr := serve(t, ns, "127.0.0.1")
	f := open(t, ns, backend.NFTables).(*nftFreezer)
	must(t, f.Freeze(time.Minute))
	f.conn.ns = &failing{ns, unix.EOPNOTSUPP}
	if err := f.Seal(0); !errors.Is(err, ErrPacketSockets) || !strings.Contains(err.Error(), code.PacketSockets.String()) || !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("the error is %v", err)
	}
	if _, err := dial(ns, addr, Mark); err == nil {
		t.Error("a marked connection passes")
	}
}

// TestHalfOfSealed promises that a namespace in which only the table for packet
// sockets is left counts as frozen.
func TestHalfOfSealed(t *testing.T) {
	t.Parallel()
	ns, _ := nstest.Pair(t)
	f := open(t, ns, backend.NFTables)
	must(t, f.Freeze(time.Minute))
	must(t, f.Seal(0))
	nstest.Run(t, ns, "nft", "delete", "table", "inet", tableName)
	st, err := Look(ns)
	must(t, err)
	checkState(t, "Look", st, State{Backend: backend.NFTables, Frozen: true, Left: time.Minute})
	must(t, f.Lift())
	st, err = Look(ns)
	must(t, err)
	checkState(t, "Look", st, State{})
}

// TestRulesFromText promises that nft understands the rules as it prints them, which
// is how CRIU restores those of a namespace that it has dumped.
func TestRulesFromText(t *testing.T) {
	t.Parallel()
	ns, _ := nstest.Pair(t)
	f, c := open(t, ns, backend.NFTables), openConns(t, ns, backend.NFTables, "x")
	conns := []tcp.Tuple{tuple("192.0.2.1:443", "192.0.2.2:40000"), tuple("[2001:db8::1]:443", "[2001:db8::2]:40001")}
	for _, name := range []string{"text-frozen", "text-sealed", "text-sealed-answers"} {
		must(t, f.Prepare(time.Minute))
		must(t, f.Freeze(time.Minute))
		must(t, c.Freeze(conns, time.Minute))
		if name == "text-sealed" {
			must(t, f.Seal(0))
			must(t, c.Seal(0))
		}
		if name == "text-sealed-answers" {
			must(t, f.Seal(secret))
			must(t, c.Seal(secret))
		}
		text := nstest.Run(t, ns, "nft", "list", "ruleset")
		must(t, f.Thaw())
		must(t, c.Thaw())
		nstest.Run(t, ns, "nft", text)
		if got := nstest.Run(t, ns, "nft", "list", "ruleset"); normalise(got) != normalise(text) {
			t.Errorf("%s: restored\n%s\nfrom\n%s", name, got, text)
		}
		golden(t, "nftables-"+name, normalise(text))
		st, err := Look(ns)
		must(t, err)
		checkState(t, name, st, State{Backend: backend.NFTables, Frozen: true, Left: time.Minute})
		checkConns(t, c, conns...)
		must(t, f.Thaw())
		must(t, c.Thaw())
	}
}
