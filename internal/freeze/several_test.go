// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules/fake"
)

// TestCountRestore counts each restore into a namespace once, takes it back, and leaves
// freezes alone that are for any restore, or for another namespace.
func TestCountRestore(t *testing.T) {
	fresh(t)
	k := New(fake.New())
	ns, other := nstest.New(t), nstest.New(t)
	by := func(id string, restores int) record.Record { return record.Record{ID: id, Restores: restores} }
	for _, r := range []record.Record{by("several", 2), by("any", 0)} {
		_, err := k.Manual(ns, r, Options{Backend: backend.NFTables, TTL: time.Minute})
		must(t, err)
	}
	_, err := k.Manual(other, by("elsewhere", 2), Options{Backend: backend.NFTables, TTL: time.Minute})
	must(t, err)
	f := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Restore})
	for _, step := range []struct {
		done bool
		want []string
	}{{true, []string{"1@1"}}, {true, []string{"1@1"}}, {false, nil}, {false, nil}, {true, []string{"1@1"}}} {
		must(t, f.CountRestore(step.done))
		for id, want := range map[string][]string{"several": step.want, "any": nil, "elsewhere": nil} {
			r, err := record.Load(id)
			must(t, err)
			if len(r.Restored) != len(want) || !slices.Equal(r.Restored, want) && len(want) > 0 {
				t.Errorf("%s: restored %v, not %v", id, r.Restored, want)
			}
		}
	}
	r, err := record.Load("several")
	must(t, err)
	if r.MoreToCome() != 1 || !strings.Contains(noteOf(r), "waits for 1 of 2 restores") {
		t.Errorf("%d more: %s", r.MoreToCome(), noteOf(r))
	}
	// In a namespace that nobody has frozen before there is nothing to count.
	fresh := newFreeze(t, k, nstest.New(t), record.Record{ID: "2@2", Op: record.Restore})
	must(t, fresh.CountRestore(true))
	must(t, k.Freeze(&record.Record{ID: "3@3"}, backend.Auto, time.Minute, nil).CountRestore(true))
}

// TestAwaitThaw sees the end of a freeze, and does not wait for ever.
func TestAwaitThaw(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k := New(filter)
	ns := nstest.New(t)
	_, err := k.Manual(ns, record.Record{ID: "by hand"}, Options{Backend: backend.NFTables, TTL: time.Hour})
	must(t, err)
	if k.AwaitThaw(ns, time.Now().Add(3*lookAgain)) {
		t.Error("the freeze was seen to end")
	}
	go func() {
		time.Sleep(3 * lookAgain)
		filter.Advance(2 * time.Hour)
	}()
	if !k.AwaitThaw(ns, time.Now().Add(10*time.Second)) {
		t.Error("the end was not seen")
	}
}
