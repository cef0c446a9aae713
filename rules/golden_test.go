// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

var update = flag.Bool("update", false, "write the golden texts anew")

// golden compares got with a file in testdata, or updates that file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		must(t, os.WriteFile(path, []byte(got), 0o600))
		return
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if got != string(want) {
		t.Errorf("the rules are not those of %s (to accept them: go test -update)\n--- got\n%s--- want\n%s", path, got, want)
	}
}

// TestGolden compares the kernel's rules with golden files. It does everything
// twice; the second time must not change anything.
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			f := open(t, ns, k)
			empty := ruleset(t, ns, k)
			if k != backend.NFTables { // iptables creates its table on first use and keeps it
				must(t, f.Prepare(0))
				must(t, f.Thaw())
				empty = ruleset(t, ns, k)
			}
			steps := []struct {
				name string
				do   func() error
				want State
			}{
				{"unarmed", func() error { return f.Prepare(0) }, State{Backend: k}},
				{"syn-held", func() error { return f.Prepare(time.Minute) }, State{Backend: k, SYNHeld: true}},
				{"syn-held-frozen", func() error { return f.Freeze(time.Minute) }, State{Backend: k, Frozen: true, Left: time.Minute}},
				{"frozen", func() error { return f.Prepare(0) }, State{Backend: k, Frozen: true, Left: time.Minute}},
				{"", f.Thaw, State{}},
				{"frozen", func() error { return f.Freeze(time.Minute) }, State{Backend: k, Frozen: true, Left: time.Minute}},
				{"sealed", func() error { return f.Seal(0) }, State{Backend: k, Frozen: true, Left: time.Minute}},
				{"sealed-answers", func() error { return f.Seal(secret) }, State{Backend: k, Frozen: true, Left: time.Minute}},
				{"frozen", func() error { return f.Freeze(time.Minute) }, State{Backend: k, Frozen: true, Left: time.Minute}},
				{"sealed", func() error { return f.Seal(0) }, State{Backend: k, Frozen: true, Left: time.Minute}},
				{"frozen", func() error { return f.Prepare(0) }, State{Backend: k, Frozen: true, Left: time.Minute}},
				{"", f.Thaw, State{}},
			}
			for _, s := range steps {
				for range 2 {
					must(t, s.do())
					if got := ruleset(t, ns, k); s.name != "" {
						golden(t, string(k)+"-"+s.name, got)
					} else if got != empty {
						t.Errorf("something was left behind:\n%s", got)
					}
					st, err := f.State()
					must(t, err)
					checkState(t, "State", st, s.want)
					st, err = Look(ns)
					must(t, err)
					checkState(t, "Look", st, s.want)
				}
			}
		})
	}
}

// checkState compares two states. The time left may be off by some seconds.
func checkState(t *testing.T, what string, got, want State) {
	t.Helper()
	if d := got.Left - want.Left; d > -10*time.Second && d <= 2*time.Second {
		got.Left = want.Left
	}
	if got != want {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

func TestGoldenConns(t *testing.T) {
	t.Parallel()
	conns := []tcp.Tuple{
		tuple("192.0.2.1:443", "192.0.2.2:40000"),
		tuple("[2001:db8::1]:443", "[2001:db8::2]:40001"),
	}
	more := tuple("[::ffff:192.0.2.1]:443", "[::ffff:192.0.2.3]:40002")
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			f := openConns(t, ns, k, "golden")
			other := openConns(t, ns, k, "otherowner12")
			must(t, f.Freeze(nil, time.Minute))
			must(t, f.Thaw())
			empty := ruleset(t, ns, k)
			must(t, f.Freeze(conns[:1], time.Minute))
			must(t, f.Freeze(conns, time.Minute)) // including the first one again
			golden(t, string(k)+"-conns", ruleset(t, ns, k))
			checkConns(t, f, conns...)
			for range 2 {
				must(t, f.Seal(0))
				golden(t, string(k)+"-conns-sealed", ruleset(t, ns, k))
				checkConns(t, f, conns...)
			}
			for range 2 {
				must(t, f.Seal(secret))
				golden(t, string(k)+"-conns-sealed-answers", ruleset(t, ns, k))
				checkConns(t, f, conns...)
			}
			must(t, f.Freeze(nil, time.Minute))
			golden(t, string(k)+"-conns", ruleset(t, ns, k))

			must(t, other.Freeze([]tcp.Tuple{more}, time.Minute))
			checkConns(t, f, conns...)
			checkConns(t, other, tuple("192.0.2.1:443", "192.0.2.3:40002"))
			must(t, f.Thaw())
			checkConns(t, f)
			checkConns(t, other, tuple("192.0.2.1:443", "192.0.2.3:40002"))
			must(t, other.Thaw())
			must(t, other.Thaw())
			if got := ruleset(t, ns, k); got != empty {
				t.Errorf("something was left behind:\n%s", got)
			}
		})
	}
}

// TestConnsThawedByAnother freezes connections again that somebody else has thawed.
func TestConnsThawedByAnother(t *testing.T) {
	t.Parallel()
	conns := []tcp.Tuple{
		tuple("192.0.2.1:443", "192.0.2.2:40000"),
		tuple("192.0.2.1:443", "192.0.2.2:40001"),
	}
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			f := openConns(t, ns, k, "twice")
			must(t, f.Freeze(conns, time.Minute))
			must(t, openConns(t, ns, k, "twice").Thaw())
			checkConns(t, f)
			must(t, f.Freeze(conns[:1], time.Minute))
			checkConns(t, f, conns[0])
			must(t, f.Freeze(conns, time.Minute))
			checkConns(t, f, conns...)
		})
	}
}

func checkConns(t *testing.T, f ConnFreezer, want ...tcp.Tuple) {
	t.Helper()
	got, left, err := f.Frozen()
	must(t, err)
	set := map[tcp.Tuple]bool{}
	for _, conn := range got {
		set[conn] = true
	}
	for _, conn := range want {
		if !set[conn] {
			t.Errorf("%s is not frozen", conn)
		}
	}
	if len(got) != len(want) {
		t.Errorf("frozen: %v, want %v", got, want)
	}
	if len(want) > 0 && (left < 50*time.Second || left > 62*time.Second) {
		t.Errorf("%s left, want a minute", left)
	}
}
