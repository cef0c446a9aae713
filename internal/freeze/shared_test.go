// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// conns makes connections of one peer, told apart by its ports.
func conns(ports ...uint16) []tcp.Tuple {
	var all []tcp.Tuple
	for _, port := range ports {
		all = append(all, tcp.Tuple{
			Local:  netip.MustParseAddrPort("192.0.2.1:7000"),
			Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), port),
		})
	}
	return all
}

// TestSiblings has one container of a pod let go of the network: what becomes
// of the other's record?
func TestSiblings(t *testing.T) {
	ns, other := nstest.New(t), nstest.New(t)
	sleep := exec.Command("sleep", "3600")
	must(t, sleep.Start())
	t.Cleanup(func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	})
	process, err := proc.Open(sleep.Process.Pid)
	must(t, err)
	defer process.Close()
	living := []proc.Ref{process.Ref}

	const holder, silent, taken, nothing = "holder", "silent", "taken", "nothing"
	netNS, single := record.NetNS, record.Connections
	dump, restore := record.Dump, record.Restore
	mine, theirs := conns(1, 2), conns(3)
	for _, tc := range []struct {
		what    string
		op      record.Op // of ours, whose connections are mine
		sibling record.Record
		over    bool // the sibling's time to live is
		settler bool // the sibling's is there
		want    string
	}{
		{"held", dump, record.Record{Phase: record.Held, Scope: netNS, Tree: living, Conns: theirs}, false, false, holder},
		{"held, restored beside", restore, record.Record{Phase: record.Held, Scope: netNS, Tree: living, Conns: theirs}, false, false, holder},
		{"isolated", dump, record.Record{Phase: record.Isolated, Scope: netNS, Tree: living}, false, false, holder},
		{"under way", dump, record.Record{Phase: record.Running, Scope: netNS, CRIU: living[0]}, false, true, holder},
		{"under way, its settler killed", dump, record.Record{Phase: record.Running, Scope: netNS, CRIU: living[0]}, false, false, holder},
		{"about to be undone", dump, record.Record{Phase: record.Running, Scope: netNS}, false, true, nothing},
		{"connections about to be undone", restore, record.Record{Phase: record.Running, Scope: single, Conns: mine}, false, true, nothing},
		{"orphaned", dump, record.Record{Phase: record.Running, Scope: netNS}, false, false, taken},
		{"committed, its settler killed", dump, record.Record{Phase: record.Committed, Policy: "hold", Stopped: true, Scope: netNS, Tree: living}, false, false, holder},
		{"committed and ended, its settler killed", dump, record.Record{Phase: record.Committed, Policy: "kill", Scope: netNS, Conns: theirs}, false, false, silent},
		{"ended", dump, record.Record{Phase: record.Ended, Scope: netNS, Conns: theirs}, false, false, silent},
		{"ended, restored beside", restore, record.Record{Phase: record.Ended, Scope: netNS, Conns: theirs}, false, false, silent},
		{"held and killed since", dump, record.Record{Phase: record.Held, Scope: netNS, Conns: theirs}, false, false, silent},
		{"ended, too late", dump, record.Record{Phase: record.Ended, Scope: netNS, Conns: theirs}, true, false, taken},
		{"ended, restored now", restore, record.Record{Phase: record.Ended, Scope: netNS, Conns: mine[:1]}, false, false, taken},
		{"ended, same connections", dump, record.Record{Phase: record.Ended, Scope: netNS, Conns: mine[:1]}, false, false, silent},
		{"by hand, for this restore", restore, record.Record{Phase: record.Frozen, Scope: netNS}, false, false, taken},
		{"for several restores", restore, record.Record{Phase: record.Frozen, Scope: netNS, Restores: 2, Restored: []string{"1@1"}}, false, false, holder},
		{"for several restores, the last one", restore, record.Record{Phase: record.Frozen, Scope: netNS, Restores: 2, Restored: []string{"0@0", "1@1"}}, false, false, taken},
		{"by hand, for a later one", dump, record.Record{Phase: record.Frozen, Scope: netNS}, false, false, holder},
		{"connections, restored now", restore, record.Record{Phase: record.Ended, Scope: single, Conns: mine}, false, false, taken},
		{"connections of others", restore, record.Record{Phase: record.Ended, Scope: single, Conns: theirs}, false, false, nothing},
		{"connections, at a dump", dump, record.Record{Phase: record.Ended, Scope: single, Conns: mine}, false, false, nothing},
		{"connections under way", restore, record.Record{Phase: record.Running, Scope: single, Conns: mine, CRIU: living[0]}, false, true, nothing},
		{"in another namespace", dump, record.Record{Phase: record.Frozen, Scope: netNS, NetNS: other.ID()}, false, false, nothing},
	} {
		t.Run(tc.what, func(t *testing.T) {
			must(t, record.MakeDir())
			t.Cleanup(func() { _ = os.RemoveAll(record.Dir) })
			ours := &record.Record{ID: "1@1", Op: tc.op, Phase: record.Running, Scope: netNS, NetNS: ns.ID(), Conns: mine, Until: time.Now().Add(time.Hour)}
			must(t, ours.Save())
			r := tc.sibling
			r.ID, r.Op = "2@2", dump
			r.ExpireIn(time.Hour)
			if r.NetNS != other.ID() {
				r.NetNS = ns.ID()
			}
			if tc.over {
				r.ExpireIn(-time.Second)
			}
			must(t, r.Save())
			if tc.settler {
				lock, err := record.Acquire(r.ID)
				must(t, err)
				defer record.Release(r.ID, lock)
			}
			held, quiet, free, err := siblings(ns, []*record.Record{ours})
			must(t, err)
			var got []string
			if held != nil {
				got = append(got, holder)
			}
			for range quiet {
				got = append(got, silent)
			}
			for range free {
				got = append(got, taken)
			}
			if len(got) == 0 {
				got = []string{nothing}
			}
			if !slices.Equal(got, []string{tc.want}) {
				t.Errorf("the sibling is %v, want %s", got, tc.want)
			}
			if held != nil {
				if text := (&SharedError{held}).Error(); !strings.Contains(text, "netfreeze thaw '"+ns.ID().String()+"'") {
					t.Errorf("the error does not say what to do: %s", text)
				}
			}
			if held, quiet, free, err := siblings(ns, []*record.Record{ours, &r}); err != nil || held != nil || len(quiet)+len(free) > 0 {
				t.Errorf("let go together: %v, %v, %v, %v", held, quiet, free, err)
			}
		})
	}
}
