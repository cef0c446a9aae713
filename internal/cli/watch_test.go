// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
)

// TestWatchChanges prints a line for what is new, what has changed, and what has gone.
func TestWatchChanges(t *testing.T) {
	var out strings.Builder
	w := watcher{out: &out, known: map[string]string{}}
	held := freeze.Status{ID: "1", NetNS: "net:[1]", Container: "abc", State: "committed", Policy: "hold"}
	old := &journal.Report{ID: "old", Header: journal.Header{Op: "dump"}, Outcome: journal.Held}
	look := func(list []freeze.Status, logged ...*journal.Report) string {
		t.Helper()
		out.Reset()
		if err := w.changes(list, logged); err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{3} `).ReplaceAllString(out.String(), "")
	}
	for _, tc := range []struct {
		name, got, want string
	}{
		{"the first look", look([]freeze.Status{held}, old), "net:[1] abc: committed, policy hold\n"},
		{"nothing new", look([]freeze.Status{held}, old), ""},
		{"a new state", look([]freeze.Status{{ID: "1", NetNS: "net:[1]", Container: "abc", State: "held"}}, old), "net:[1] abc: held\n"},
		{
			"gone, and a report", look(nil, old, &journal.Report{ID: "new", Header: journal.Header{Op: "restore"}, Outcome: journal.Failed}),
			"net:[1] abc: no longer frozen\nrestore new: CRIU did not succeed, and everything was taken back\n",
		},
		{"empty", look(nil), ""},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, tc.got, tc.want)
		}
	}
}

func TestWatchScreen(t *testing.T) {
	var out strings.Builder
	w := watcher{out: &out}
	if err := w.screen([]freeze.Status{{NetNS: "net:[1]", State: "held"}}, nil); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "\x1b[H") || !strings.Contains(got, "held") || strings.Contains(strings.ReplaceAll(got, "\x1b[K\n", ""), "\n") {
		t.Errorf("got %q", got)
	}
}

func TestMetrics(t *testing.T) {
	frozen := time.Unix(100, 0)
	thawed, ns := frozen.Add(50*time.Millisecond), int64(3e6)
	var out strings.Builder
	err := writeMetrics(&out, []freeze.Status{{ID: "7@9", Container: "we\"b\n", NetNS: "net:[1]", State: "held", Frozen: true, LeftSeconds: 12.5}}, []*journal.Report{
		{Header: journal.Header{Op: "restore"}, Outcome: journal.Restored, Began: time.Unix(100, 0), Frozen: &frozen, Thawed: &thawed, Flows: []journal.Flow{{InNS: &ns}}},
		{Header: journal.Header{Op: "dump"}, Began: time.Unix(200, 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`netfreeze_freezes{state="held"} 1`,
		`netfreeze_freezes{state="orphaned"} 0`,
		`netfreeze_freeze_left_seconds{id="7@9",container="we\"b\\x0a",pod="",netns="net:[1]",state="held"} 12.5`,
		`netfreeze_reports{op="restore",outcome="restored"} 1`,
		`netfreeze_reports{op="dump",outcome="unknown"} 1`,
		`netfreeze_last_timestamp_seconds{op="dump",outcome="unknown"} 200`,
		`netfreeze_last_frozen_seconds{op="restore"} 0.05`,
		`netfreeze_last_first_byte_seconds 0.003`,
	} {
		if !strings.Contains(out.String(), "\n"+want+"\n") {
			t.Errorf("lacks %s:\n%s", want, out.String())
		}
	}
	// The form of Prometheus' text, as its documentation describes it.
	line := regexp.MustCompile(`^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="(\\.|[^"\\])*"(,[a-z]+="(\\.|[^"\\])*")*\})? [-+.e0-9]+)$`)
	for l := range strings.Lines(out.String()) {
		if !line.MatchString(strings.TrimSuffix(l, "\n")) {
			t.Errorf("malformed: %q", l)
		}
	}
}

// TestAlerts has the alerts that are shipped ask for nothing but what is printed.
func TestAlerts(t *testing.T) {
	alerts, err := os.ReadFile("../../install/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := writeMetrics(&out, nil, nil); err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`netfreeze_[a-z_]+`).FindAllString(string(alerts), -1)
	for _, name := range asked {
		if !strings.Contains(out.String(), "# TYPE "+name+" gauge\n") {
			t.Errorf("an alert asks for %s", name)
		}
	}
	if len(asked) == 0 {
		t.Error("no alert asks for anything")
	}
}
