// SPDX-License-Identifier: Apache-2.0

package fake_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
	"github.com/criu-netfreeze/criu-netfreeze/rules/fake"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, f *fake.Filter, want ...string) {
	t.Helper()
	if got := f.String(); got != strings.Join(want, "\n") {
		t.Errorf("in force:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

func open(t *testing.T, f rules.Filter, ns *netns.Isolated, k backend.Kind) rules.Freezer {
	t.Helper()
	z, err := f.Open(ns, k)
	must(t, err)
	t.Cleanup(func() { must(t, z.Close()) })
	return z
}

func tuple(port uint16) tcp.Tuple {
	return tcp.NewTuple(netip.MustParseAddrPort("192.0.2.1:443"), netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), port))
}

func TestWhole(t *testing.T) {
	t.Parallel()
	f, ns := fake.New(), nstest.Isolated(t)
	check(t, f)
	z := open(t, f, ns, backend.Auto)
	check(t, f)
	must(t, z.Prepare(time.Second))
	check(t, f, "whole nftables prepared syn-held")
	f.Advance(time.Second)
	check(t, f, "whole nftables prepared")
	must(t, z.Freeze(15*time.Minute))
	f.Advance(time.Minute)
	check(t, f, "whole nftables frozen 14m0s")
	other := open(t, f, ns, backend.IPTables)
	must(t, other.Freeze(time.Hour))
	check(t, f, "whole iptables-nft frozen 1h0m0s", "whole nftables frozen 14m0s")
	must(t, other.Lift())
	must(t, z.Lift())
	check(t, f, "whole nftables prepared")
	must(t, z.Freeze(time.Minute))
	must(t, f.ThawAll(ns))
	check(t, f)
}

// TestSeal seals freezes, which changes only what String prints, until the next freeze.
func TestSeal(t *testing.T) {
	t.Parallel()
	f, ns := fake.New(), nstest.Isolated(t)
	z := open(t, f, ns, backend.Auto)
	c, err := f.OpenConns(ns.Namespace, backend.Auto, "x")
	must(t, err)
	if err := z.Seal(0); !errors.Is(err, rules.ErrNotFrozen) {
		t.Errorf("nothing is frozen, and sealing it: %v", err)
	}
	must(t, c.Seal(0))
	check(t, f)
	must(t, z.Freeze(time.Hour))
	must(t, c.Freeze([]tcp.Tuple{tuple(1)}, time.Hour))
	f.Calls()
	for range 2 {
		must(t, open(t, f, ns, backend.Auto).Seal(0))
		must(t, c.Seal(0))
		check(t, f, "conns nftables x 1 frozen 1h0m0s sealed", "whole nftables frozen 1h0m0s sealed")
	}
	if got, want := f.Calls(), []string{"Open", "Seal", "ConnSeal", "Open", "Seal", "ConnSeal"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	must(t, z.Seal(7))
	must(t, c.Seal(7))
	check(t, f, "conns nftables x 1 frozen 1h0m0s sealed answers", "whole nftables frozen 1h0m0s sealed answers")
	must(t, z.Prepare(0))
	must(t, c.Freeze(nil, time.Hour))
	check(t, f, "conns nftables x 1 frozen 1h0m0s", "whole nftables frozen 1h0m0s")
	must(t, z.Seal(0))
	must(t, z.Freeze(time.Minute))
	check(t, f, "conns nftables x 1 frozen 1h0m0s", "whole nftables frozen 1m0s")
	must(t, z.Seal(0))
	f.Advance(time.Minute)
	check(t, f, "conns nftables x 1 frozen 59m0s", "whole nftables prepared")
	must(t, z.Lift())
	must(t, c.Seal(0))
	must(t, c.Thaw())
	check(t, f)
}

func TestConns(t *testing.T) {
	t.Parallel()
	f, ns := fake.New(), nstest.New(t)
	z, err := f.OpenConns(ns, backend.Auto, "t00000001")
	must(t, err)
	must(t, z.Freeze([]tcp.Tuple{tuple(1)}, time.Second))
	must(t, z.Freeze([]tcp.Tuple{tuple(1), tuple(2)}, 15*time.Minute))
	check(t, f, "conns nftables t00000001 2 frozen 15m0s")
	f.AddCRIULock(ns, "CRIU-123")
	check(t, f, "conns nftables t00000001 2 frozen 15m0s", "criu-lock CRIU-123")
	tuples, left, err := z.Frozen()
	must(t, err)
	if !slices.Equal(tuples, []tcp.Tuple{tuple(1), tuple(2)}) || left != 15*time.Minute {
		t.Errorf("frozen: %v for %s", tuples, left)
	}
	f.Advance(15 * time.Minute)
	check(t, f, "conns nftables t00000001 0", "criu-lock CRIU-123")
	must(t, z.Freeze([]tcp.Tuple{tuple(3)}, time.Minute))
	check(t, f, "conns nftables t00000001 1 frozen 1m0s", "criu-lock CRIU-123")
	must(t, z.Thaw())
	check(t, f, "criu-lock CRIU-123")
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	f, a, b := fake.New(), nstest.Isolated(t), nstest.Isolated(t)
	must(t, open(t, f, a, backend.NFTables).Prepare(0))
	_, err := f.Look(b.Namespace) // which does not count
	must(t, err)
	check(t, f, "whole nftables prepared")
	f.AddCRIULock(b.Namespace, "CRIU-1")
	f.AddCRIULock(b.Namespace, "CRIU-2")
	want := []string{
		a.ID().String() + " whole nftables prepared",
		b.ID().String() + " criu-lock CRIU-1",
		b.ID().String() + " criu-lock CRIU-2",
	}
	slices.Sort(want)
	check(t, f, want...)
	must(t, f.RemoveCRIULocks(b, []string{"CRIU-2"}))
	locks, err := f.CRIULocks(b.Namespace)
	must(t, err)
	if !slices.Equal(locks, []string{"CRIU-2"}) {
		t.Errorf("locks: %q", locks)
	}
	must(t, f.RemoveCRIULocks(b, nil))
	check(t, f, a.ID().String()+" whole nftables prepared")
}

// TestFail makes each method fail, for good and for a number of calls. A call that
// fails must neither change anything nor be among the calls.
func TestFail(t *testing.T) {
	t.Parallel()
	f, ns := fake.New(), nstest.Isolated(t)
	z := open(t, f, ns, backend.Auto)
	c, err := f.OpenConns(ns.Namespace, backend.Auto, "x")
	must(t, err)
	must(t, z.Freeze(time.Minute))
	must(t, c.Freeze([]tcp.Tuple{tuple(1)}, time.Minute))
	f.AddCRIULock(ns.Namespace, "CRIU-1")
	state := f.String()
	if got, want := f.Calls(), []string{"Open", "OpenConns", "Freeze", "ConnFreeze"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	methods := map[string]func() error{
		"Open":            func() error { _, err := f.Open(ns, backend.Auto); return err },
		"OpenConns":       func() error { _, err := f.OpenConns(ns.Namespace, backend.Auto, "x"); return err },
		"Look":            func() error { _, err := f.Look(ns.Namespace); return err },
		"CRIULocks":       func() error { _, err := f.CRIULocks(ns.Namespace); return err },
		"RemoveCRIULocks": func() error { return f.RemoveCRIULocks(ns, nil) },
		"Prepare":         func() error { return z.Prepare(time.Second) },
		"Freeze":          func() error { return z.Freeze(time.Hour) },
		"Seal":            func() error { return z.Seal(0) },
		"Lift":            z.Lift,
		"Thaw":            z.Thaw,
		"State":           func() error { _, err := z.State(); return err },
		"ConnFreeze":      func() error { return c.Freeze([]tcp.Tuple{tuple(2)}, time.Hour) },
		"ConnSeal":        func() error { return c.Seal(0) },
		"ConnThaw":        c.Thaw,
		"Frozen":          func() error { _, _, err := c.Frozen(); return err },
		"ThawAll":         func() error { return f.ThawAll(ns) },
	}
	broken := errors.New("broken")
	for name, call := range methods {
		f.Fail(name, broken)
		for range 3 {
			if err := call(); !errors.Is(err, broken) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	check(t, f, state)
	if got := f.Calls(); got != nil {
		t.Errorf("failed calls: %q", got)
	}
	for name, call := range methods {
		f.FailTimes(name, broken, 2)
		for i := range 3 {
			if err := call(); errors.Is(err, broken) != (i < 2) {
				t.Errorf("%s: call %d: %v", name, i, err)
			}
		}
		f.Fail(name, broken)
		f.Fail(name, nil)
		if err := call(); err != nil && !errors.Is(err, rules.ErrNotFrozen) { // the order is random
			t.Fatal(err)
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	f, ns := fake.New(), nstest.Isolated(t)
	if _, err := f.Open(ns, "ipfw"); err == nil {
		t.Error("an unknown back end was opened")
	}
	if _, err := f.OpenConns(ns.Namespace, backend.Auto, "a-b"); err == nil {
		t.Error("a bad owner was accepted")
	}
	z := open(t, f, ns, backend.Auto)
	if err := z.Freeze(0); err == nil {
		t.Error("a freeze for no time was accepted")
	}
	c, err := f.OpenConns(ns.Namespace, backend.Auto, "x")
	must(t, err)
	if err := c.Freeze([]tcp.Tuple{{}}, time.Minute); err == nil {
		t.Error("no connection was accepted as one")
	}
	must(t, c.Close())
	must(t, c.Close())
	if err := c.Thaw(); err == nil {
		t.Error("a closed freezer works")
	}
	check(t, f)
	if got, want := f.Calls(), []string{"Open", "OpenConns"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}

// TestLikeKernel does the same with the kernel and with a fake, and compares what is
// in force after each step.
func TestLikeKernel(t *testing.T) {
	t.Parallel()
	for _, k := range []backend.Kind{backend.NFTables, backend.IPTablesNFT, backend.IPTablesLegacy} {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			got, want := history(t, fake.New(), k), history(t, rules.Kernel{}, k)
			for i := range want {
				got[i].Left, want[i].Left = got[i].Left.Round(time.Minute), want[i].Left.Round(time.Minute)
				if got[i] != want[i] {
					t.Errorf("after step %d: %+v, the kernel has %+v", i, got[i], want[i])
				}
			}
		})
	}
}

// history freezes and thaws a new namespace in many ways. It returns what Look and
// State found after each step.
func history(t *testing.T, f rules.Filter, k backend.Kind) (states []rules.State) {
	t.Helper()
	ns := nstest.Isolated(t)
	z, other := open(t, f, ns, k), open(t, f, ns, k)
	for _, step := range []func() error{
		z.Thaw,
		func() error { return z.Prepare(0) },
		func() error { return z.Prepare(time.Hour) },
		func() error { return z.Freeze(time.Hour) },
		func() error { return z.Prepare(time.Hour) },
		z.Lift,
		z.Lift,
		func() error { return z.Freeze(2 * time.Hour) },
		func() error { return other.Freeze(time.Hour) },
		func() error { return other.Prepare(0) },
		other.Lift,
		func() error { return z.Prepare(time.Hour) },
		func() error { return other.Freeze(time.Hour) },
		z.Thaw,
		z.Thaw,
		func() error { return z.Freeze(time.Hour) },
		open(t, f, ns, k).Lift,
		func() error { return z.Freeze(time.Hour) },
		func() error { return z.Seal(0) },
		func() error { return z.Seal(0) },
		func() error { return z.Freeze(time.Hour) },
		func() error { return z.Seal(0) },
		z.Lift,
		func() error { return z.Freeze(time.Hour) },
		func() error { return open(t, f, ns, k).Seal(0) },
		func() error { return z.Prepare(0) },
		func() error { return open(t, f, ns, k).Seal(0) },
		z.Lift,
		func() error { return z.Freeze(time.Hour) },
		func() error { return f.ThawAll(ns) },
		func() error { return f.ThawAll(ns) },
	} {
		must(t, step())
		st, err := f.Look(ns.Namespace)
		must(t, err)
		own, err := z.State()
		must(t, err)
		states = append(states, st, own)
	}
	return states
}
