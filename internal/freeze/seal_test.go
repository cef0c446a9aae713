// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules/fake"
)

// TestSealManual seals what somebody freezes under running tasks, and lets a restore
// into it, which needs packets with CRIU's mark, open it again.
func TestSealManual(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	_, err := k.Manual(ns, record.Record{ID: "manual"}, Options{Backend: backend.NFTables, TTL: time.Hour, Sealed: true})
	must(t, err)
	if !strings.Contains(filter.String(), "sealed") {
		t.Errorf("in force: %s", filter)
	}
	f := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Restore})
	must(t, f.Arm())
	if strings.Contains(filter.String(), "sealed") {
		t.Errorf("during the restore: %s", filter)
	}
	// Meanwhile it stays open, whoever asks.
	_, err = k.Manual(ns, record.Record{ID: "manual"}, Options{Backend: backend.NFTables, TTL: time.Hour, Sealed: true})
	must(t, err)
	must(t, f.Seal())
	lock, err := record.Acquire("1@1") // as its settler has it
	must(t, err)
	defer record.Release("1@1", lock)
	other := newFreeze(t, k, ns, record.Record{ID: "2@2", Op: record.Dump, Phase: record.Held})
	must(t, other.Arm())
	must(t, other.Seal())
	if strings.Contains(filter.String(), "sealed") {
		t.Errorf("sealed by a sibling: %s", filter)
	}
}

// TestSealFailsManual leaves nothing frozen that could not be sealed.
func TestSealFailsManual(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	filter.Fail("Seal", unix.EIO)
	if _, err := k.Manual(ns, record.Record{ID: "manual"}, Options{Backend: backend.NFTables, TTL: time.Hour, Sealed: true}); err == nil {
		t.Error("no error")
	}
	if all, err := record.All(); filter.String() != "" || len(all) > 0 || err != nil {
		t.Errorf("in force %s, records %v, %v", filter, all, err)
	}
}

// TestUnseal opens what a former dump has left of the connections that a restore is
// about to rebuild, and nothing of others'.
func TestUnseal(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	mine, others := conns(1), conns(2)
	for owner, of := range map[string]tcp.Tuples{"a": mine, "b": others} {
		c, err := filter.OpenConns(ns, backend.NFTables, owner)
		must(t, err)
		must(t, c.Freeze(of, time.Minute))
		must(t, c.Seal(0))
		r := &record.Record{ID: owner, Op: record.Dump, Phase: record.Ended, Scope: record.Connections, NetNS: ns.ID(), Backend: backend.NFTables, Owner: owner, Conns: of}
		r.ExpireIn(time.Minute)
		must(t, r.Save())
	}
	f := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Restore, Conns: mine})
	must(t, f.Arm())
	if s := filter.String(); strings.Count(s, "sealed") != 1 || !strings.Contains(s, "conns nftables b 1 frozen 1m0s sealed") {
		t.Errorf("in force: %s", s)
	}
}
