// SPDX-License-Identifier: Apache-2.0

package quiet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// traffic is what the peer of a connection sends.
type traffic struct {
	name string
	peer func(c net.Conn) // runs until the connection is closed
	app  func(c net.Conn)
}

func read(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func wait(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }

// push sends 8 bytes every millisecond.
func push(c net.Conn) {
	for {
		if _, err := c.Write(make([]byte, 8)); err != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// flood sends as fast as it can.
func flood(c net.Conn) {
	for {
		if _, err := c.Write(make([]byte, 1<<16)); err != nil {
			return
		}
	}
}

// ask sends a byte, and another one after the answer.
func ask(c net.Conn) {
	b := make([]byte, 1)
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// kinds are the kinds of traffic. In each of them the peer can send.
var kinds = []traffic{
	{"idle", wait, wait},
	{"pushing", push, read},
	{"flooding", flood, read},
	{"requesting", ask, echo},
	{"answering", echo, ask},
	{"flooded", read, flood},
	{"both flooding", func(c net.Conn) { go read(c); flood(c) }, func(c net.Conn) { go read(c); flood(c) }},
	{"not read", flood, wait},
	{"half closed", func(c net.Conn) { push(c) }, func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite(); read(c) }},
}

// ends is a connection as it is at its own end, and as the peer sees it.
type ends struct{ local, seen tcp.Tuple }

// connect makes a connection from a to b, at both ends of which runs traffic.
func connect(t *testing.T, a, b *netns.Namespace, addr string, k traffic) tcp.Tuple {
	t.Helper()
	return connectTo(t, a, b, addr, k).local
}

func connectTo(t *testing.T, a, b *netns.Namespace, addr string, k traffic) ends {
	t.Helper()
	var l net.Listener
	nstest.Must(t, b.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(addr, "0"))
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	accepted := make(chan net.Conn)
	go func() {
		c, err := l.Accept()
		if err != nil {
			close(accepted)
			return
		}
		accepted <- c
	}()
	var c net.Conn
	nstest.Must(t, a.Do(func() (err error) {
		c, err = net.Dial("tcp", l.Addr().String())
		return err
	}))
	peer := <-accepted
	t.Cleanup(func() { _, _ = c.Close(), peer.Close() })
	go k.app(c)
	go k.peer(peer)
	tuple := func(local, remote net.Addr) tcp.Tuple {
		return tcp.NewTuple(netip.MustParseAddrPort(local.String()), netip.MustParseAddrPort(remote.String()))
	}
	return ends{tuple(c.LocalAddr(), c.RemoteAddr()), tuple(peer.RemoteAddr(), peer.LocalAddr())}
}

// sender is how a connection stands, as its peer's kernel sees it.
type sender struct {
	window, unacked, retransmits uint32
	received                     uint64
}

// look asks the peer's kernel for the other end of a connection.
func look(t *testing.T, b *netns.Namespace, conn tcp.Tuple) (s sender) {
	t.Helper()
	family := uint8(unix.AF_INET6)
	if conn.Is4() {
		family = unix.AF_INET
	}
	infos, err := netns.In(b, func() ([]*netlink.InetDiagTCPInfoResp, error) { return netlink.SocketDiagTCPInfo(family) })
	nstest.Must(t, err)
	for _, i := range infos {
		if i.InetDiagMsg.ID.DestinationPort == conn.Local.Port() && i.InetDiagMsg.ID.SourcePort == conn.Remote.Port() && i.TCPInfo != nil {
			return sender{i.TCPInfo.Snd_wnd, i.TCPInfo.Unacked, i.TCPInfo.Total_retrans, i.TCPInfo.Bytes_received}
		}
	}
	t.Fatalf("the peer of %s has no connection", conn)
	return s
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: never", what)
		}
	}
}

// TestMake has peers of all kinds become quiet: they know of a window of 0, have nothing
// under way, and send nothing until the windows are opened; then they go on at once.
func TestMake(t *testing.T) {
	for _, addr := range []string{nstest.B4, nstest.B6} {
		for _, k := range kinds {
			t.Run(k.name+" "+addr, func(t *testing.T) {
				a, b := nstest.Pair(t)
				conn := connect(t, a, b, addr, k)
				f := prepare(t, a)
				time.Sleep(20 * time.Millisecond) // for some traffic
				was := look(t, b, conn)
				p := make_(t, a, f, conn)
				if !p.Has(conn) || p.Loud+p.Slow != 0 {
					t.Fatalf("%d are quiet, %d are loud, %d slow", p.Quiet(), p.Loud, p.Slow)
				}
				t.Logf("quiet after %v", p.Took)
				var s sender
				eventually(t, "the peer has nothing under way", func() bool {
					s = look(t, b, conn)
					return s.window == 0 && s.unacked == 0
				})
				before := received(t, a, conn)
				time.Sleep(50 * time.Millisecond) // it is given the time to send
				if now, later := received(t, a, conn), look(t, b, conn); now != before || later.retransmits > s.retransmits {
					t.Errorf("the quiet peer has sent %d bytes, and retransmits: %+v, before %+v", now-before, later, s)
				}
				// Who sends as fast as a busy machine can loses segments anyway.
				if s.retransmits > was.retransmits && !strings.Contains(k.name, "flood") {
					t.Errorf("the peer has repeated something to become quiet: %+v, before %+v", s, was)
				}
				nstest.Must(t, f.ShutWindows(nil, 0))
				began := time.Now()
				opened := make(chan error)
				go func() {
					_, err := p.Open(context.Background())
					opened <- err
				}()
				if k.name != "not read" { // whose window is closed really
					eventually(t, "the window is open", func() bool { return look(t, b, conn).window > 0 })
					t.Logf("open after %v", time.Since(began))
				}
				nstest.Must(t, <-opened)
			})
		}
	}
}

// TestMakeMany has many peers become quiet, and go on.
func TestMakeMany(t *testing.T) {
	a, b := nstest.Pair(t)
	var conns []tcp.Tuple
	for i := range 300 {
		conns = append(conns, connect(t, a, b, []string{nstest.B4, nstest.B6}[i%2], kinds[i%2]))
	}
	f := prepare(t, a)
	p := make_(t, a, f, conns...)
	t.Logf("%d quiet after %v, %d loud, %d slow", p.Quiet(), p.Took, p.Loud, p.Slow)
	if p.Quiet() < len(conns)*9/10 {
		t.Errorf("of %d connections %d are quiet", len(conns), p.Quiet())
	}
}

// TestMakeLoud gives connections that cannot be asked, or not in time, their window back.
func TestMakeLoud(t *testing.T) {
	a, b := nstest.Pair(t)
	loud, idle := connect(t, a, b, nstest.B4, kinds[1]), connect(t, a, b, nstest.B4, kinds[0])
	nstest.Run(t, a, "nft", "add table ip t; add chain ip t c { type filter hook input priority -200; }; add rule ip t c tcp flags syn drop")
	f := prepare(t, a)
	p := make_(t, a, f, idle, loud)
	if p.Has(idle) || !p.Has(loud) || p.Loud != 1 {
		t.Errorf("of one that does not answer, and one that says it by itself: quiet %v %v, %d loud", p.Has(idle), p.Has(loud), p.Loud)
	}
	if s := look(t, b, idle); s.window == 0 {
		t.Error("a loud peer has no window")
	}
}

// TestMakeLate gives peers that were told to be quiet, but not in time, their window back,
// and tells them.
func TestMakeLate(t *testing.T) {
	a, b := nstest.Pair(t)
	f := prepare(t, a)
	for range 20 { // on a busy machine it may be in time, or not even be told
		conn := connect(t, a, b, nstest.B4, kinds[0])
		p, err := Make(a, []tcp.Tuple{conn}, margin, func(conns []tcp.Tuple) error { return f.ShutWindows(conns, time.Minute) })
		nstest.Must(t, err)
		p.Close()
		if p.Loud == 0 || len(p.unheard) > 0 {
			nstest.Must(t, f.ShutWindows(nil, 0))
			continue
		}
		eventually(t, "the window is open", func() bool { return look(t, b, conn).window > 0 })
		return
	}
	t.Error("it is always in time")
}

// TestOpenUnheard tells peers that their windows are open of which it is not known what
// they have been told.
func TestOpenUnheard(t *testing.T) {
	a, b := nstest.Pair(t)
	conn := connect(t, a, b, nstest.B4, kinds[0])
	f := prepare(t, a)
	p := make_(t, a, f, conn)
	p.peers, p.unheard = p.unheard, p.peers
	nstest.Must(t, f.ShutWindows(nil, 0))
	if sent, err := p.Open(context.Background()); err != nil || sent != 1 {
		t.Errorf("%d packets, %v", sent, err)
	}
	eventually(t, "the window is open", func() bool { return look(t, b, conn).window > 0 })
}

// TestTranslated leaves connections alone whose addresses are translated: a question about
// one would come to whoever listens on the same port.
func TestTranslated(t *testing.T) {
	a, b := nstest.Pair(t)
	nstest.Run(t, a, "nft", "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; add rule ip t c ip protocol tcp masquerade to :20000-20999")
	nstest.Run(t, a, "nft", "add chain ip t d { type nat hook prerouting priority -100; }; add rule ip t d tcp dport 8080 redirect to :9090")
	out := connectTo(t, a, b, nstest.B4, kinds[0])
	in := redirected(t, a, b)
	f := prepare(t, a)
	p := make_(t, a, f, out.local, in)
	if p.Quiet() != 0 || p.Loud != 0 || p.Translated != 2 {
		t.Fatalf("%d are quiet, %d loud, %d translated", p.Quiet(), p.Loud, p.Translated)
	}
	nstest.Must(t, Ask(a, []tcp.Tuple{in, out.local}))
	time.Sleep(50 * time.Millisecond)
	socks, err := netns.In(a, tcp.List)
	nstest.Must(t, err)
	if n := tcp.Pending(socks); n != 0 {
		t.Errorf("%d handshakes have begun", n)
	}
	if look(t, b, out.seen).window == 0 {
		t.Error("the window is shut")
	}
}

// redirected makes a connection from b to port 8080 of a, which is translated to 9090, and
// returns it as it is in a.
func redirected(t *testing.T, a, b *netns.Namespace) tcp.Tuple {
	t.Helper()
	var l net.Listener
	nstest.Must(t, a.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(nstest.A4, "9090"))
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	var c net.Conn
	nstest.Must(t, b.Do(func() (err error) {
		c, err = net.Dial("tcp", net.JoinHostPort(nstest.A4, "8080"))
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	accepted, err := l.Accept()
	nstest.Must(t, err)
	t.Cleanup(func() { _ = accepted.Close() })
	return tcp.NewTuple(netip.MustParseAddrPort(accepted.LocalAddr().String()), netip.MustParseAddrPort(accepted.RemoteAddr().String()))
}

// TestMakeFails has nobody left with a closed window when the rules cannot be changed.
func TestMakeFails(t *testing.T) {
	a, b := nstest.Pair(t)
	conn, gone := connect(t, a, b, nstest.B4, kinds[0]), connect(t, a, b, nstest.B4, kinds[0])
	f := prepare(t, a)
	nstest.Run(t, a, "nft", "add table ip t; add chain ip t c { type filter hook input priority -200; }; add rule ip t c tcp dport "+fmt.Sprint(gone.Local.Port())+" tcp flags syn drop")
	broken, calls := errors.New("broken"), 0
	_, err := Make(a, []tcp.Tuple{conn, gone}, time.Second, func(conns []tcp.Tuple) error {
		if calls++; calls == 2 { // when the one that cannot be asked is to be left out
			return broken
		}
		return f.ShutWindows(conns, time.Minute)
	})
	if !errors.Is(err, broken) || calls != 3 {
		t.Fatalf("%d calls, %v", calls, err)
	}
	eventually(t, "the window is open", func() bool { return look(t, b, conn).window > 0 })
}

// TestMakeGone leaves out connections that are not there.
func TestMakeGone(t *testing.T) {
	a, b := nstest.Pair(t)
	there := connect(t, a, b, nstest.B4, kinds[0])
	gone := tcp.NewTuple(netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2"))
	p := make_(t, a, prepare(t, a), gone, there)
	if p.Has(gone) || !p.Has(there) || p.Loud != 0 {
		t.Errorf("%d are quiet, %d loud", p.Quiet(), p.Loud)
	}
	var none *Peers
	none.Close()
	if none.Has(there) || none.Quiet() != 0 {
		t.Error("nobody is quiet")
	}
}

// prepare puts rules in place.
func prepare(t *testing.T, ns *netns.Namespace) rules.Freezer {
	t.Helper()
	isolated, err := ns.Isolate()
	nstest.Must(t, err)
	f, err := rules.Open(isolated, backend.NFTables)
	nstest.Must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	nstest.Must(t, f.Prepare(time.Minute))
	return f
}

// make_ makes the peers quiet.
func make_(t *testing.T, ns *netns.Namespace, f rules.Freezer, conns ...tcp.Tuple) *Peers {
	t.Helper()
	p, err := Make(ns, conns, time.Second, func(conns []tcp.Tuple) error { return f.ShutWindows(conns, time.Minute) })
	nstest.Must(t, err)
	t.Cleanup(p.Close)
	return p
}

// received returns how many bytes a connection has received.
func received(t *testing.T, ns *netns.Namespace, conn tcp.Tuple) uint64 {
	t.Helper()
	all, err := netns.In(ns, func() (map[tcp.Tuple]tcp.Progress, error) { return tcp.ListProgress([]tcp.Tuple{conn}) })
	nstest.Must(t, err)
	return all[conn].Received
}
