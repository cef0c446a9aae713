// SPDX-License-Identifier: Apache-2.0

package report

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
)

var update = flag.Bool("update", false, "write the golden files anew")

func at(us int) time.Time {
	return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(us) * time.Microsecond)
}

// restored is a restore of two connections, one of which is idle, by a container with a
// name that would be more than text.
func restored() *journal.Report {
	frozen, thawed := at(8000), at(60000)
	in, out := int64(3_200_000), int64(1_100_000)
	peer := netip.MustParseAddrPort
	return &journal.Report{
		ID: "20260102-030405-7@99", Began: at(0), Outcome: journal.Restored, Frozen: &frozen, Thawed: &thawed, Connections: 2,
		Header: journal.Header{
			Op: "restore", CRIU: 7, Container: identity.Container{ID: "abcdefabcdefabcdef", Name: "web<b>\x1b[31m"},
			NetNS: "net:[4026532001]", Scope: "netns", Policy: "kill", Why: "x", Backend: "nftables",
		},
		Flows: []journal.Flow{
			{Local: peer("192.0.2.1:80"), Remote: peer("192.0.2.2:40000"), InNS: &in, OutNS: &out},
			{Local: peer("[2001:db8::1]:80"), Remote: peer("[2001:db8::2]:40000")},
		},
		Events: []journal.Event{
			{At: at(9000), Kind: journal.Begin},
			{At: at(0), Kind: journal.Action, Name: "pre-restore", TookNS: 9_000_000},
			{At: frozen, Kind: journal.Frozen},
			{At: at(59500), Kind: journal.Action, Name: "network-unlock", TookNS: 1_000_000},
			{At: thawed, Kind: journal.Thawed},
			{At: at(61000), Kind: journal.Sent, Name: "nudge", Packets: 14},
			{At: at(61500), Kind: journal.Message, Level: "warning", Text: "something\nis odd"},
			{At: at(65000), Kind: journal.Outcome, Name: journal.Restored},
			{At: at(3065000), Kind: journal.Carried},
		},
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); got\n%s", name, got)
	}
}

func TestGolden(t *testing.T) {
	t.Setenv("TZ", "UTC")
	time.Local = time.UTC
	var text, html strings.Builder
	if err := Text(&text, restored()); err != nil {
		t.Fatal(err)
	}
	golden(t, "restored.txt", text.String())
	if err := HTML(&html, restored()); err != nil {
		t.Fatal(err)
	}
	golden(t, "restored.html", html.String())
	for _, out := range []string{text.String(), html.String()} {
		if strings.Contains(out, "\x1b") {
			t.Error("a name that is more than text was printed")
		}
	}
	if strings.Contains(html.String(), "web<b>") || strings.Contains(html.String(), "http") {
		t.Error("the page has markup of a name, or needs something else")
	}
}

func TestVerdict(t *testing.T) {
	for _, o := range []string{journal.Held, journal.Ended, journal.Isolated, journal.WentOn, journal.Restored, journal.Failed, journal.Kept, journal.Refused} {
		if got := Verdict(&journal.Report{Outcome: o}); got == Verdict(&journal.Report{}) {
			t.Errorf("%s: %s", o, got)
		}
	}
	r := restored()
	r.Flows = r.Flows[1:]
	if got := Verdict(r); !strings.Contains(got, "none of 1") {
		t.Errorf("nothing carried: %s", got)
	}
}

// TestSpan draws what belongs together: neither the thaw of a hold much later nor
// what was only known later makes the rest a point.
func TestSpan(t *testing.T) {
	r := restored()
	if _, end := span(r); end.Before(at(65000)) || end.After(at(80000)) {
		t.Errorf("a restore ends at %v", end)
	}
	hold := &journal.Report{Outcome: journal.WentOn, Began: at(0), Events: []journal.Event{
		{At: at(0), Kind: journal.Action, TookNS: 1e6},
		{At: at(1000), Kind: journal.Frozen},
		{At: at(2000), Kind: journal.Outcome, Name: journal.Held},
		{At: at(3_600_000_000), Kind: journal.Thawed},
		{At: at(3_600_000_001), Kind: journal.Outcome, Name: journal.WentOn},
	}}
	if _, end := span(hold); end.After(at(10000)) {
		t.Errorf("a hold of an hour ends at %v", end)
	}
	for _, r := range []*journal.Report{{}, {Began: at(0)}, hold} {
		d := draw(r)
		if len(d.Ticks) < 3 || len(d.Ticks) > 25 {
			t.Errorf("%d ticks", len(d.Ticks))
		}
		for _, b := range append(d.Frozen, d.Calls...) {
			if b.X < 0 || b.X > drawWidth || b.Width < minBar {
				t.Errorf("a bar is outside: %+v", b)
			}
		}
	}
}

func TestTickStep(t *testing.T) {
	for length := time.Duration(1); length < 100*time.Hour; length = length*3 + 1 {
		if step := tickStep(length); step <= 0 || length/step > 10 {
			t.Errorf("%v: steps of %v", length, step)
		}
	}
}
