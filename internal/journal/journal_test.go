// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
)

// inDir has the reports in a directory of the test's.
func inDir(t *testing.T) {
	t.Helper()
	old := Dir
	Dir = filepath.Join(t.TempDir(), "reports")
	t.Cleanup(func() { Dir = old })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }

// TestReport writes a report, as a settler, the next one and a command do, and reads it.
func TestReport(t *testing.T) {
	inDir(t)
	j := Open("7@99")
	in := int64(4e6)
	j.Add(Event{At: at(3), Kind: Begin, Header: &Header{Op: "restore", CRIU: 7, Container: identity.Container{ID: "abcdef", Name: "web"}}})
	j.Add(Event{At: at(0), Kind: Action, Name: "pre-restore", TookNS: 3e6})
	j.Add(Event{At: at(2), Kind: Frozen})
	must(t, j.Close())
	must(t, j.Close())
	j.Add(Event{Kind: Outcome, Name: Failed}) // too late
	j = Open("7@99")
	j.Add(Event{At: at(4), Kind: Connections, Tasks: 2, Count: 1})
	j.Sent("nudge", 0)
	j.Sent("nudge", 7)
	j.Add(Event{At: at(9), Kind: Thawed})
	j.Add(Event{At: at(10), Kind: Carried, Carried: []Flow{{InNS: &in}}})
	must(t, j.Close())
	must(t, Append("7@99", Event{At: at(20), Kind: Outcome, Name: Restored}))
	must(t, Append("8@99", Event{Kind: Outcome})) // which has no report

	r, err := Find("last")
	must(t, err)
	frozen, ok := r.FrozenFor()
	_, last, carried := r.FirstByte()
	if r.ID != "20260102-030405-7@99" || !r.Began.Equal(at(0)) || r.Outcome != Restored || frozen != 7*time.Millisecond || !ok ||
		last != 4*time.Millisecond || carried != 1 || r.Tasks != 2 || r.Connections != 1 || len(r.Events) != 8 {
		t.Errorf("got %+v", r)
	}
	for _, id := range []string{r.ID, "0405-7", "7@99", "web", "abc"} {
		if got, err := Find(id); err != nil || got.ID != r.ID {
			t.Errorf("%q: %v", id, err)
		}
	}
	all, err := All()
	if err != nil || len(all) != 1 || all[0].Events != nil || all[0].Outcome != Restored {
		t.Errorf("All: %v, %v", all, err)
	}
}

func TestFindRefuses(t *testing.T) {
	inDir(t)
	for _, id := range []string{"last", "", "ab"} {
		if _, err := Find(id); !hasCode(err, code.Target) {
			t.Errorf("%q in an empty directory: %v", id, err)
		}
	}
	for i := range 2 {
		j := Open(fmt.Sprintf("7%d@1", i))
		j.Add(Event{At: at(i), Kind: Frozen})
		must(t, j.Close())
	}
	if _, err := Find("2026"); !hasCode(err, code.Target) || !strings.Contains(err.Error(), "2 reports") {
		t.Errorf("two fit: %v", err)
	}
}

func hasCode(err error, want code.Code) bool {
	got, ok := code.Of(err)
	return ok && got == want
}

// TestDamaged reads what a full disk or a crash leaves.
func TestDamaged(t *testing.T) {
	inDir(t)
	must(t, os.MkdirAll(Dir, 0o700))
	for name, content := range map[string]string{
		"20260101-000000-1@1.jsonl": `{"kind":"outcome","name":"held"}` + "\n" + `{"kind":"outc`,
		"20260101-000001-2@1.jsonl": "nonsense\n",
		"20260101-000002-3@1.jsonl": "",
		"notes.txt":                 "not a report",
		"x.jsonl":                   "not a report",
		"99999999-000000-1@1.jsonl": "not a time",
	} {
		must(t, os.WriteFile(filepath.Join(Dir, name), []byte(content), 0o600))
	}
	all, err := All()
	if len(all) != 2 || all[0].Outcome != Held || all[1].Outcome != "" {
		t.Errorf("got %v", all)
	}
	if !hasCode(err, code.Record) || !strings.Contains(err.Error(), "2@1.jsonl") {
		t.Errorf("the damaged report: %v", err)
	}
}

// TestRotate keeps the newest, by number and by size.
func TestRotate(t *testing.T) {
	inDir(t)
	must(t, os.MkdirAll(Dir, 0o700))
	for i := range 5 {
		must(t, os.WriteFile(filepath.Join(Dir, fmt.Sprintf("20260101-00000%d-1@1.jsonl", i)), make([]byte, 100), 0o600))
	}
	for _, tc := range []struct {
		count int
		size  int64
		left  int
	}{{9, 1000, 5}, {4, 1000, 4}, {9, 250, 2}, {0, 1000, 0}} {
		must(t, rotate(tc.count, tc.size))
		all, err := names()
		must(t, err)
		if len(all) != tc.left || tc.left > 0 && all[len(all)-1] != "20260101-000004-1@1.jsonl" {
			t.Errorf("%d reports of %d bytes: %v are left", tc.count, tc.size, all)
		}
	}
}

// TestUnwritable says at the end that nothing could be written, and keeps nobody waiting.
func TestUnwritable(t *testing.T) {
	inDir(t)
	must(t, os.WriteFile(Dir, nil, 0o600)) // a file where the directory should be
	j := Open("7@99")
	for range 3 * maxPending {
		j.Add(Event{Kind: Frozen})
	}
	if err := j.Close(); err == nil {
		t.Error("no error")
	}
	var none *Journal
	none.Add(Event{})
	none.Sent("x", 1)
	must(t, none.Close())
}

// TestConcurrent has several goroutines add and close.
func TestConcurrent(t *testing.T) {
	inDir(t)
	j := Open("7@99")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				j.Add(Event{Kind: Message, Text: "x"})
			}
			_ = j.Close()
		})
	}
	all.Wait()
	if r, err := Find("last"); err != nil || len(r.Events) < 50 {
		t.Errorf("%v", err)
	}
}

// TestSymlink writes through no link that somebody has put there.
func TestSymlink(t *testing.T) {
	inDir(t)
	must(t, os.MkdirAll(Dir, 0o700))
	victim := filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, nil, 0o600))
	must(t, os.Symlink(victim, filepath.Join(Dir, "20260102-030405-7@99.jsonl")))
	j := Open("7@99")
	j.Add(Event{At: began, Kind: Frozen})
	err := j.Close()
	if content, err2 := os.ReadFile(victim); err2 != nil || len(content) > 0 || err == nil {
		t.Errorf("wrote %q (%v)", content, errors.Join(err, err2))
	}
}

func TestFlow(t *testing.T) {
	one, two := int64(1), int64(2)
	for _, tc := range []struct {
		in, out *int64
		want    time.Duration
		ok      bool
	}{{nil, nil, 0, false}, {&one, nil, 1, true}, {nil, &two, 2, true}, {&one, &two, 1, true}, {&two, &one, 1, true}} {
		f := Flow{Local: netip.AddrPort{}, InNS: tc.in, OutNS: tc.out}
		if got, ok := f.First(); got != tc.want || ok != tc.ok {
			t.Errorf("%+v: %v, %v", tc, got, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"at":"2026-01-02T03:04:05Z","kind":"frozen"}` + "\n"))
	f.Add([]byte(`{"kind":"carried","carried":[{"local":"1.2.3.4:5","remote":"[::1]:6","in_ns":1}]}` + "\n"))
	f.Add([]byte(`{"kind":"connections","count":1,"connections":"1.2.3.4:5 1.2.3.5:6"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse(data)
		if err == nil && len(r.Events) > strings.Count(string(data), "\n") {
			t.Errorf("%d events in %q", len(r.Events), data)
		}
	})
}
