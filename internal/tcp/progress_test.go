// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is both ends of a connection over loopback.
func pair(t *testing.T, listen, dial string, control func(fd int) error) (Tuple, net.Conn) {
	t.Helper()
	set := func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) {
			if control != nil {
				err = control(int(fd))
			}
		})
		return errors.Join(err, failed)
	}
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	there := netip.AddrPortFrom(netip.MustParseAddr(dial), l.Addr().(*net.TCPAddr).AddrPort().Port())
	d := net.Dialer{Control: set}
	c, err := d.Dial("tcp", there.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	return NewTuple(netip.MustParseAddrPort(c.LocalAddr().String()), there), c
}

// TestListProgress asks for connections one by one and in a list. Those that are gone,
// or have never been there, are missing, also where somebody listens on the port.
func TestListProgress(t *testing.T) {
	inNetNS(t, func() {
		bind := func(fd int) error { return unix.BindToDevice(fd, "lo") }
		for _, tc := range []struct {
			name, listen, dial string
			control            func(fd int) error
		}{
			{"IPv4", "127.0.0.1:0", "127.0.0.1", nil},
			{"IPv6", "[::1]:0", "::1", nil},
			{"IPv4 by an IPv6 socket", "[::]:0", "127.0.0.1", nil},
			{"bound to an interface", "127.0.0.1:0", "127.0.0.1", bind},
		} {
			tuple, c := pair(t, tc.listen, tc.dial, tc.control)
			if _, err := c.Write(make([]byte, 4711)); err != nil {
				t.Fatal(err)
			}
			never := Tuple{Local: netip.AddrPortFrom(tuple.Local.Addr(), 1), Remote: tuple.Remote}
			asked := []Tuple{tuple, tuple.Reverse(), never, never.Reverse()}
			many := slices.Repeat(asked, fewConns)
			for _, conns := range [][]Tuple{asked, asked[:2], many} {
				all, err := ListProgress(conns)
				if err != nil {
					t.Fatal(err)
				}
				_, is := all[never]
				_, isReverse := all[never.Reverse()]
				if is || isReverse || all[tuple].Acked < 4711 || all[tuple.Reverse()].Received != 4711 || all[tuple].RTT <= 0 || all[tuple].Waits {
					t.Errorf("%s, %d connections: %+v", tc.name, len(conns), all)
				}
			}
		}
	})
}

// TestProgressOf asks for a connection whose one end has been closed: the kernel keeps
// little of that.
func TestProgressOf(t *testing.T) {
	inNetNS(t, func() {
		tuple, c := pair(t, "127.0.0.1:0", "127.0.0.1", nil)
		both := []Tuple{tuple, tuple.Reverse()}
		if some, err := progressOf(both); err != nil || len(some) != 2 {
			t.Errorf("%+v, %v", some, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		some, err := progressOf(both)
		if _, is := some[tuple.Reverse()]; err != nil || !is {
			t.Errorf("after a FIN: %+v, %v", some, err)
		}
	})
}

// TestRoundTrip does not count how long a peer puts its acknowledgements off.
func TestRoundTrip(t *testing.T) {
	for _, tc := range []struct {
		rtt, shortest uint32
		want          time.Duration
	}{
		{100, 0, 100 * time.Microsecond},
		{100, 80, 100 * time.Microsecond},
		{42_000, 30, 60 * time.Microsecond},
		{42_000, math.MaxUint32, 42 * time.Millisecond},
		{math.MaxUint32, math.MaxUint32 - 1, math.MaxUint32 * time.Microsecond},
		{0, 0, 0},
	} {
		if got := roundTrip(unix.TCPInfo{Rtt: tc.rtt, Min_rtt: tc.shortest}); got != tc.want {
			t.Errorf("%d and %d: %v, want %v", tc.rtt, tc.shortest, got, tc.want)
		}
	}
}

// FuzzParseInfo reads a message of sock_diag with attributes.
func FuzzParseInfo(f *testing.F) {
	f.Add(append(message(unix.AF_INET, Established, 192, 0, 2, 1), 8, 0, infoAttribute, 0, 1, 0, 0, 0))
	f.Add(append(message(unix.AF_INET6, TimeWait, 0x20, 1), 3, 0, infoAttribute, 0))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if _, _, ok := parseInfo(msg); ok && len(msg) < diagLen+unix.SizeofRtAttr {
			t.Fatalf("%d bytes", len(msg))
		}
	})
}
