// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"errors"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// TestGoldenWindows compares the kernel's rules with golden files. Shutting windows
// changes nothing about a freeze, and a thaw leaves nothing of it.
func TestGoldenWindows(t *testing.T) {
	t.Parallel()
	conns := []tcp.Tuple{
		tuple("192.0.2.1:443", "192.0.2.2:40000"),
		tuple("[2001:db8::1]:443", "[2001:db8::2]:40001"),
	}
	ns := nstest.New(t)
	empty := ruleset(t, ns, backend.NFTables)
	f := open(t, ns, backend.NFTables)
	must(t, f.Prepare(0))
	must(t, f.ShutWindows(nil, time.Minute))
	golden(t, "nftables-unarmed", ruleset(t, ns, backend.NFTables))
	must(t, f.ShutWindows(append(conns, tuple("192.0.2.1:443", "192.0.2.2:40001")), time.Minute))
	for range 2 {
		must(t, f.ShutWindows(conns, time.Minute))
		golden(t, "nftables-windows-shut", ruleset(t, ns, backend.NFTables))
	}
	must(t, f.Freeze(time.Minute))
	golden(t, "nftables-windows-shut-frozen", ruleset(t, ns, backend.NFTables))
	must(t, f.Lift())
	golden(t, "nftables-windows-lifted", ruleset(t, ns, backend.NFTables))
	must(t, f.ShutWindows(conns, time.Minute))
	must(t, f.Prepare(0)) // which replaces all
	golden(t, "nftables-unarmed", ruleset(t, ns, backend.NFTables))
	must(t, f.ShutWindows(conns, time.Minute))
	must(t, f.Thaw())
	c := openConns(t, ns, backend.NFTables, "golden")
	must(t, c.Freeze(nil, time.Minute))
	must(t, c.ShutWindows(conns, time.Minute))
	must(t, c.Freeze(conns, time.Minute))
	golden(t, "nftables-conns-windows-shut", ruleset(t, ns, backend.NFTables))
	must(t, c.ShutWindows(nil, 0))
	must(t, c.Thaw())
	if got := ruleset(t, ns, backend.NFTables); got != empty {
		t.Errorf("something was left behind:\n%s", got)
	}
}

// TestWindowsFromText has nft read what it prints of shut windows: CRIU restores rules
// from that.
func TestWindowsFromText(t *testing.T) {
	t.Parallel()
	a, b := nstest.New(t), nstest.New(t)
	f := open(t, a, backend.NFTables)
	must(t, f.Prepare(0))
	must(t, f.ShutWindows([]tcp.Tuple{tuple("192.0.2.1:443", "192.0.2.2:40000")}, time.Minute))
	text := nstest.Run(t, a, "nft", "list", "ruleset")
	nstest.Run(t, b, "nft", text)
	golden(t, "nftables-windows-text", ruleset(t, b, backend.NFTables))
}

// TestWindowsRemoved shuts windows in a table that somebody else has removed: that is an
// error, and no rules of half a kind are left.
func TestWindowsRemoved(t *testing.T) {
	t.Parallel()
	conns := []tcp.Tuple{tuple("192.0.2.1:443", "192.0.2.2:40000")}
	ns := nstest.New(t)
	f := open(t, ns, backend.NFTables)
	must(t, f.Prepare(0))
	must(t, f.ShutWindows(conns, time.Minute))
	must(t, open(t, ns, backend.NFTables).Thaw())
	for range 2 {
		if err := f.ShutWindows(conns, time.Minute); err == nil {
			t.Error("the windows are shut, without a table")
		}
	}
	must(t, f.Lift())
	must(t, f.Freeze(time.Minute))
	must(t, f.ShutWindows(conns, time.Minute))
}

// TestWindows has a peer stop sending, and go on, while everything passes.
func TestWindows(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{nstest.B4, nstest.B6} {
		for _, scope := range []string{"whole", "conns"} {
			t.Run(scope+" "+addr, func(t *testing.T) {
				t.Parallel()
				a, b := nstest.Pair(t)
				server := serve(t, b, addr)
				l, other := mustDial(t, a, server), mustDial(t, a, server)
				var w Windows
				if scope == "whole" {
					f := open(t, a, backend.NFTables)
					must(t, f.Prepare(0))
					w = f
				} else {
					f := openConns(t, a, backend.NFTables, "windows")
					must(t, f.Freeze(nil, time.Minute))
					w = f
				}
				for _, opens := range []func(){
					func() { must(t, w.ShutWindows(nil, 0)) },
					func() { must(t, w.ShutWindows([]tcp.Tuple{tupleOf(other)}, time.Minute)) },
					func() {
						must(t, w.ShutWindows([]tcp.Tuple{tupleOf(l)}, 100*time.Millisecond))
						time.Sleep(150 * time.Millisecond) // by the kernel's clock
					},
				} {
					must(t, w.ShutWindows([]tcp.Tuple{tupleOf(l)}, time.Minute))
					l.stuck(t)
					opens()
					l.passes(t)
				}
				must(t, w.ShutWindows(nil, 0))
				other.passes(t)
			})
		}
	}
}

func TestWindowsIPTables(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		if k == backend.NFTables {
			continue
		}
		ns := nstest.New(t)
		f, c := open(t, ns, k), openConns(t, ns, k, "windows")
		before := ruleset(t, ns, k)
		if err := errors.Join(f.ShutWindows(nil, time.Minute), c.ShutWindows(nil, time.Minute)); !errors.Is(err, ErrWindows) {
			t.Errorf("%s: %v", k, err)
		}
		if got := ruleset(t, ns, k); got != before {
			t.Errorf("%s: %s", k, got)
		}
	}
}
