// SPDX-License-Identifier: Apache-2.0

package nstest

import (
	"net"
	"net/netip"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Connect makes n TCP connections from one namespace to an address and port of another
// one, where nobody accepts them, and returns them as the first one sees them. They last
// as long as the test.
func Connect(t *testing.T, from, to *netns.Namespace, addr string, n int) []tcp.Tuple {
	t.Helper()
	var l net.Listener
	Must(t, to.Do(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	conns := make([]tcp.Tuple, n)
	for i := range conns {
		Must(t, from.Do(func() error {
			c, err := net.Dial("tcp", l.Addr().String())
			if err == nil {
				t.Cleanup(func() { _ = c.Close() })
				conns[i] = tcp.NewTuple(netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String()))
			}
			return err
		}))
	}
	return conns
}
