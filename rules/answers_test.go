// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
)

// secret is the mark of answers in tests.
const secret = 0xa5a5a5a5

// emptyAnswers are answers of both IP families, from A to B of nstest.Pair.
func emptyAnswers() []wire.Segment {
	var all []wire.Segment
	for _, ends := range [][2]string{{nstest.A4, nstest.B4}, {nstest.A6, nstest.B6}} {
		all = append(all, wire.Segment{
			Tuple: tcp.NewTuple(netip.AddrPortFrom(netip.MustParseAddr(ends[0]), 443), netip.AddrPortFrom(netip.MustParseAddr(ends[1]), 40000)),
			Seq:   1, Ack: 2, Flags: wire.FlagACK, Timestamps: true, Timestamp: 3, Echo: 4,
		})
	}
	return all
}

// sendMarked sends packets from ns with a mark. One that a filter drops is no error.
func sendMarked(t *testing.T, ns *netns.Namespace, mark uint32, packets ...[]byte) {
	t.Helper()
	must(t, ns.Do(func() error {
		s, err := wire.Open()
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.Mark(mark); err != nil {
			return err
		}
		for _, p := range packets {
			if err := s.Send(p); err != nil && !errors.Is(err, unix.EPERM) {
				return err
			}
		}
		return nil
	}))
}

// TestAnswers promises that of all packets just answers leave a sealed freeze, and only
// with the mark that Seal was told last; and that nothing with it arrives.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			a, b := nstest.Pair(t)
			f, seen, arrive := open(t, a, k), watch(t, b), serve(t, a, nstest.A4)
			leave := func(when string, want bool) {
				t.Helper()
				packets(t, seen)
				for _, s := range emptyAnswers() {
					sendMarked(t, a, secret, s.Packet())
					s.Timestamps = false
					sendMarked(t, a, secret, s.Packet())
				}
				n := 0
				if want {
					n = 4
				}
				if got := packets(t, seen); len(got) != n {
					t.Errorf("%s: the peer sees %v, want %d packets", when, got, n)
				}
			}
			must(t, f.Freeze(time.Minute))
			leave("frozen", false)
			must(t, f.Seal(secret+1))
			leave("another mark", false)
			must(t, f.Seal(secret))
			leave("sealed", true)
			must(t, open(t, a, k).Seal(secret))
			leave("sealed twice", true)
			checkNoOther(t, k, a, seen)
			if c, err := dial(b, arrive, secret); err == nil {
				_ = c.Close()
				t.Error("something with the mark arrives")
			}
			st, err := f.State()
			must(t, err)
			checkState(t, "sealed", st, State{Backend: k, Frozen: true, Left: time.Minute})
			must(t, f.Seal(0))
			leave("sealed wholly", false)
			must(t, f.Seal(secret))
			must(t, f.Freeze(time.Minute))
			leave("frozen anew", false)
		})
	}
}

// checkNoOther sends from a what is no answer.
func checkNoOther(t *testing.T, k backend.Kind, a *netns.Namespace, seen *os.File) {
	t.Helper()
	for what, change := range map[string]func(*wire.Segment){
		"RST":          func(s *wire.Segment) { s.Flags |= wire.FlagRST },
		"FIN":          func(s *wire.Segment) { s.Flags |= wire.FlagFIN },
		"SYN":          func(s *wire.Segment) { s.Flags = wire.FlagSYN },
		"pushed":       func(s *wire.Segment) { s.Flags |= wire.FlagPSH; s.Data = []byte("x") },
		"open window":  func(s *wire.Segment) { s.Window = 1 },
		"much of data": func(s *wire.Segment) { s.Data = []byte(strings.Repeat("x", 100)) },
	} {
		if k != backend.NFTables && slices.Contains([]string{"open window", "much of data"}, what) {
			continue // see passOut
		}
		for _, s := range emptyAnswers() {
			change(&s)
			sendMarked(t, a, secret, s.Packet())
		}
		if p := packets(t, seen); len(p) > 0 {
			t.Errorf("%s: the peer sees %v", what, p)
		}
	}
	for _, s := range emptyAnswers() {
		sendMarked(t, a, 0, s.Packet())
		sendMarked(t, a, Mark, s.Packet())
	}
	if p := packets(t, seen); len(p) > 0 {
		t.Errorf("without the mark: the peer sees %v", p)
	}
}

// TestAnswersOfConns promises the same of single connections.
func TestAnswersOfConns(t *testing.T) {
	t.Parallel()
	for _, k := range backends {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			a, b := nstest.Pair(t)
			f, seen := openConns(t, a, k, "x"), watch(t, b)
			var frozen []tcp.Tuple
			var all [][]byte
			for _, s := range emptyAnswers() {
				frozen, all = append(frozen, s.Tuple), append(all, s.Packet())
			}
			must(t, f.Freeze(frozen, time.Minute))
			for i, tc := range []struct {
				pass, mark uint32
				n          int
			}{{0, secret, 0}, {secret, secret, 2}, {secret, secret + 1, 0}, {secret + 1, secret + 1, 2}, {secret, Mark, 0}} {
				must(t, f.Seal(tc.pass))
				packets(t, seen)
				sendMarked(t, a, tc.mark, all...)
				got := slices.DeleteFunc(packets(t, seen), func(p string) bool { return !strings.HasSuffix(p, "protocol 6") })
				if len(got) != tc.n {
					t.Errorf("%d: the peer sees %v, want %d packets", i, got, tc.n)
				}
				checkConns(t, f, frozen...)
			}
		})
	}
}
