// SPDX-License-Identifier: Apache-2.0

package delay_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/testdata/delay"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// addresses are those of the far end.
var addresses = []string{nstest.B4, nstest.B6}

// ends makes two namespaces that a wire joins.
func ends(t *testing.T, oneWay time.Duration) (a, b *netns.Namespace, w *delay.Wire) {
	t.Helper()
	a, b = nstest.New(t), nstest.New(t)
	middle := nstest.New(t)
	for i, ns := range []*netns.Namespace{a, b} {
		near := fmt.Sprintf("end%d", i)
		addrs := [][2]string{{nstest.A4, nstest.A6}, {nstest.B4, nstest.B6}}[i]
		nstest.Run(t, middle, "ip", "link", "add", near, "type", "veth",
			"peer", "name", "eth0", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.FD()))
		nstest.Run(t, ns, "ip", "addr", "add", addrs[0]+"/24", "dev", "eth0")
		nstest.Run(t, ns, "ip", "addr", "add", addrs[1]+"/64", "dev", "eth0", "nodad")
		nstest.Run(t, ns, "ip", "link", "set", "eth0", "addrgenmode", "none", "up")
		nstest.Run(t, middle, "ip", "link", "set", near, "addrgenmode", "none", "up")
	}
	nstest.Must(t, middle.Do(func() (err error) {
		w, err = delay.New("end0", "end1", oneWay)
		return err
	}))
	t.Cleanup(func() { _ = w.Close() })
	return a, b, w
}

// serve has a server in a namespace that handles each connection, and returns its port.
func serve(t *testing.T, ns *netns.Namespace, handle func(net.Conn)) string {
	t.Helper()
	var l net.Listener
	nstest.Must(t, ns.Do(func() (err error) {
		l, err = net.Listen("tcp", ":0")
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	nstest.Must(t, err)
	return port
}

// dial connects from a namespace; the connection ends with the test, and fails after a while.
func dial(t *testing.T, ns *netns.Namespace, addr, port string) net.Conn {
	t.Helper()
	var c net.Conn
	nstest.Must(t, ns.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", net.JoinHostPort(addr, port), 10*time.Second)
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	nstest.Must(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	return c
}

// TestRoundTrip checks that a byte and its echo take twice the delay.
func TestRoundTrip(t *testing.T) {
	for _, oneWay := range []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond} {
		t.Run(oneWay.String(), func(t *testing.T) {
			t.Parallel()
			const rounds, allowance = 9, 10 * time.Millisecond
			a, b, w := ends(t, oneWay)
			port := serve(t, b, func(c net.Conn) { _, _ = io.Copy(c, c) })
			for _, addr := range addresses {
				c := dial(t, a, addr, port)
				var took []time.Duration
				for range rounds {
					begun := time.Now()
					_, err := c.Write([]byte{1})
					nstest.Must(t, err)
					_, err = io.ReadFull(c, make([]byte, 1))
					nstest.Must(t, err)
					took = append(took, time.Since(begun))
				}
				slices.Sort(took)
				t.Logf("%s: %v to %v, median %v", addr, took[0], took[rounds-1], took[rounds/2])
				if took[0] < 2*oneWay || took[rounds/2] > 2*oneWay+allowance {
					t.Errorf("a round trip should take %s", 2*oneWay)
				}
			}
			if n := w.Lost(); n > 0 {
				t.Errorf("%d frames were lost", n)
			}
		})
	}
}

// TestBulk sends more than the buffers hold, in segments that are larger than a frame and
// without checksums, as the kernel hands them to a veth pair.
func TestBulk(t *testing.T) {
	const oneWay, length = 5 * time.Millisecond, 32 << 20
	a, b, w := ends(t, oneWay)
	port := serve(t, b, func(c net.Conn) {
		sum := sha256.New()
		_, _ = io.Copy(sum, c)
		_, _ = c.Write(sum.Sum(nil))
	})
	for _, addr := range addresses {
		c := dial(t, a, addr, port)
		sum, begun := sha256.New(), time.Now()
		seed := [32]byte{1}
		_, err := io.CopyN(io.MultiWriter(sum, c), rand.NewChaCha8(seed), length)
		nstest.Must(t, err)
		nstest.Must(t, c.(*net.TCPConn).CloseWrite())
		got, err := io.ReadAll(c)
		nstest.Must(t, err)
		if !bytes.Equal(got, sum.Sum(nil)) {
			t.Errorf("%s: the bytes changed on the way", addr)
		}
		t.Logf("%s: %.0f MB/s", addr, length/1e6/time.Since(begun).Seconds())
	}
	if n := w.Lost(); n > 0 {
		t.Errorf("%d frames were lost", n)
	}
}

// TestClose checks that nothing gets through a wire that was closed, and that an interface
// has to be there.
func TestClose(t *testing.T) {
	a, b, w := ends(t, time.Millisecond)
	port := serve(t, b, func(c net.Conn) { _, _ = io.Copy(c, c) })
	c := dial(t, a, nstest.B4, port)
	nstest.Must(t, w.Close())
	_, err := c.Write([]byte{1})
	nstest.Must(t, err)
	nstest.Must(t, c.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if w, err := delay.New("end0", "end7", 0); err == nil {
		_ = w.Close()
		t.Error("a wire with one end")
	}
}
