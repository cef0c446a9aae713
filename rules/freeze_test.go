// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// TestFreeze freezes and thaws real TCP connections, over a veth pair and over
// loopback, IPv4 and IPv6. While they are frozen the peer sees nothing but packets
// with CRIU's mark.
func TestFreeze(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			a, b := nstest.Pair(t)
			f := open(t, a, k)
			must(t, f.Prepare(0))
			seen := watch(t, b)

			var links []*link
			for _, addr := range []string{nstest.B4, nstest.B6} {
				links = append(links, mustDial(t, a, serve(t, b, addr)))
			}
			servers := []string{serve(t, a, nstest.A4), serve(t, a, nstest.A6)}
			for _, addr := range servers {
				links = append(links, mustDial(t, b, addr))
			}
			local := []string{serve(t, a, "127.0.0.1"), serve(t, a, "::1")}
			for _, addr := range local {
				links = append(links, mustDial(t, a, addr))
			}
			closing := mustDial(t, a, serve(t, b, nstest.B4))
			for _, l := range links {
				l.passes(t)
			}

			must(t, f.Freeze(time.Minute))
			packets(t, seen)         // skip what was under way before
			must(t, closing.Close()) // no FIN
			for _, l := range links {
				l.stuck(t)
			}
			for _, addr := range servers { // no SYN+ACK, no RST
				if _, err := dial(b, addr, 0); err == nil {
					t.Errorf("connected to %s in a frozen namespace", addr)
				}
			}
			if p := packets(t, seen); len(p) > 0 {
				t.Errorf("the peer of a frozen namespace sees %v", p)
			}
			for _, addr := range local {
				l, err := dial(a, addr, Mark)
				if err != nil {
					t.Errorf("marked packets do not pass: %v", err)
					continue
				}
				l.passes(t)
				must(t, l.Close())
			}
			for _, addr := range []string{nstest.B4, nstest.B6} {
				if _, err := dial(a, net.JoinHostPort(addr, "9"), Mark); err == nil {
					t.Errorf("an answer without a mark came through")
				}
			}
			if p := packets(t, seen); len(p) < 2 {
				t.Errorf("of two marked SYN the peer saw %v", p)
			}

			must(t, f.Thaw())
			for _, l := range links {
				l.passes(t)
			}
		})
	}
}

// TestTimeToLive waits for the kernel to end a freeze.
func TestTimeToLive(t *testing.T) {
	t.Parallel()
	const ttl = time.Second
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			l := mustDial(t, ns, serve(t, ns, "127.0.0.1"))
			f := open(t, ns, k)
			must(t, f.Freeze(time.Minute))
			must(t, f.Freeze(10*ttl))
			start := time.Now()
			must(t, f.Freeze(ttl)) // restarts the time to live
			l.stuck(t)
			l.passes(t)
			if d := time.Since(start); d < ttl {
				t.Errorf("a freeze for %s was over after %s", ttl, d)
			}
			st, err := f.State()
			must(t, err)
			checkState(t, "State", st, State{Backend: k})
			must(t, f.Thaw())
		})
	}
}

// TestLift lifts a freeze and freezes again, also after another Freezer has lifted
// or thawed in between.
func TestLift(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			l := mustDial(t, ns, serve(t, ns, "127.0.0.1"))
			f, other := open(t, ns, k), open(t, ns, k)
			must(t, f.Lift())
			for range 2 {
				must(t, f.Freeze(time.Minute))
				l.stuck(t)
				must(t, f.Lift())
				must(t, f.Lift())
				l.passes(t)
				st, err := f.State()
				must(t, err)
				if st.Frozen {
					t.Errorf("frozen after Lift: %+v", st)
				}
			}
			must(t, f.Freeze(time.Minute))
			must(t, other.Lift()) // as another process would
			l.passes(t)
			must(t, f.Lift())
			must(t, f.Prepare(time.Minute))
			must(t, f.Freeze(time.Minute))
			l.stuck(t)
			must(t, f.Lift())
			st, err := f.State()
			must(t, err)
			if st.Frozen || st.SYNHeld {
				t.Errorf("after Lift: %+v", st)
			}
			must(t, f.Thaw())
			l.passes(t)
		})
	}
}

// TestHoldSYN holds off new connections only, and only for a time.
func TestHoldSYN(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			a, b := nstest.Pair(t)
			in, out := serve(t, a, nstest.A6), serve(t, b, nstest.B4)
			f := open(t, a, k)
			old := mustDial(t, b, in)
			must(t, f.Prepare(2*time.Second))
			if _, err := dial(b, in, 0); err == nil {
				t.Error("a new connection came in")
			}
			old.passes(t)
			mustDial(t, a, out).passes(t)
			eventually(t, "the end of the hold", func() bool {
				l, err := dial(b, in, 0)
				return err == nil && l.Close() == nil
			})
			must(t, f.Prepare(time.Minute))
			must(t, f.Prepare(0))
			mustDial(t, b, in).passes(t)
		})
	}
}

// TestConns freezes one connection of two between the same hosts.
func TestConns(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		for _, family := range []struct{ name, client, server string }{
			{"IPv4", nstest.A4, nstest.B4}, {"IPv6", nstest.A6, nstest.B6}, {"loopback", "127.0.0.1", "127.0.0.1"},
		} {
			t.Run(string(k)+"/"+family.name, func(t *testing.T) {
				t.Parallel()
				a, b := nstest.Pair(t)
				server := b
				if family.name == "loopback" {
					server = a
				}
				addr := serve(t, server, family.server)
				frozen, free := mustDial(t, a, addr), mustDial(t, a, addr)
				f := openConns(t, a, k, "x")
				conn := tupleOf(frozen)
				must(t, f.Freeze([]tcp.Tuple{conn}, time.Minute))
				frozen.stuck(t)
				free.passes(t)
				mustDial(t, a, addr).passes(t)

				// Segments that arrive from the other side are dropped, too.
				if server == b {
					other := openConns(t, b, k, "y")
					must(t, other.Freeze([]tcp.Tuple{{Local: conn.Remote, Remote: conn.Local}}, time.Minute))
					must(t, f.Thaw())
					frozen.stuck(t)
					must(t, other.Freeze(nil, time.Second)) // restarts the time to live, which ends soon
				} else {
					must(t, f.Freeze(nil, time.Second))
				}
				frozen.passes(t)
			})
		}
	}
}

func tupleOf(l *link) tcp.Tuple {
	side := func(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }
	return tcp.Tuple{Local: side(l.LocalAddr()), Remote: side(l.RemoteAddr())}
}

// foreign puts rules that are not ours into ns, in the same places as ours.
func foreign(t *testing.T, ns *netns.Namespace) {
	t.Helper()
	nstest.Run(t, ns, "nft", "add table inet criu-netfreezer; add chain inet criu-netfreezer c { type filter hook prerouting priority raw; }; add rule inet criu-netfreezer c tcp dport 7 drop")
	for _, v := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"} {
		nstest.Run(t, ns, v, "-w", "-t", "raw", "-N", "CRIU-NETFREEZE")
		nstest.Run(t, ns, v, "-w", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--dport", "9", "-j", "CRIU-NETFREEZE")
		nstest.Run(t, ns, v, "-w", "-t", "raw", "-A", "OUTPUT", "-j", "CRIU-NETFREEZE")
		nstest.Run(t, ns, v, "-w", "-A", "INPUT", "-p", "udp", "-j", "DROP")
	}
}

// TestForeignRules makes sure that other rules stay exactly as they are.
func TestForeignRules(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			foreign(t, ns)
			before := everything(t, ns)
			f := open(t, ns, k)
			must(t, f.Prepare(time.Second))
			must(t, f.Freeze(time.Minute))
			must(t, f.Thaw())
			if got := everything(t, ns); got != before {
				t.Errorf("after a thaw the rules are\n%s\nand were\n%s", got, before)
			}
			c := openConns(t, ns, k, "x")
			must(t, c.Freeze([]tcp.Tuple{tuple("127.0.0.1:1", "127.0.0.1:2"), tuple("[::1]:1", "[::1]:2")}, time.Minute))
			must(t, c.Thaw())
			if got := everything(t, ns); got != before {
				t.Errorf("after a thaw of connections the rules are\n%s\nand were\n%s", got, before)
			}
		})
	}
}
