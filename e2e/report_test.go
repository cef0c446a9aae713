// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
)

// reports returns what netfreeze log lists since the test began.
func reports(t *testing.T) []*journal.Report {
	t.Helper()
	var all []*journal.Report
	if err := json.Unmarshal([]byte(mustRun(t, "", "", netfreeze, "log", "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// awaitReport waits until the last report fits, and returns it with its events.
func awaitReport(t *testing.T, what string, fits func(*journal.Report) error) *journal.Report {
	t.Helper()
	var r journal.Report
	poll(t, patience, "a report of "+what, func() error {
		r = journal.Report{}
		if err := json.Unmarshal([]byte(mustRun(t, "", "", netfreeze, "report", "last", "-o", "json")), &r); err != nil {
			return err
		}
		return fits(&r)
	})
	return &r
}

func ofOutcome(want string) func(*journal.Report) error {
	return func(r *journal.Report) error {
		if r.Outcome != want {
			return fmt.Errorf("the outcome of the %s is %q, want %q", r.Op, r.Outcome, want)
		}
		return nil
	}
}

// TestReport has a container dumped, held, thawed, dumped again and moved, and compares
// what the reports say with what was seen.
func TestReport(t *testing.T) {
	e := runtimeEngine("runc")
	withNetfreeze(t, settings{policy: "hold"}, e)
	p := newPair(t, e, true, few)
	p.holdAndThaw()
	held := awaitReport(t, "the hold", func(r *journal.Report) error {
		if r.Thawed == nil {
			return errors.New("it was not thawed yet")
		}
		return ofOutcome(journal.WentOn)(r)
	})
	if d, _ := held.FrozenFor(); d <= 0 || held.Op != "dump" || held.Policy != "hold" || held.Container.ID == "" || held.Tasks == 0 || held.Connections == 0 {
		t.Errorf("the hold: %+v", held)
	}
	var asked []string
	for _, e := range held.Events {
		if e.Kind == journal.Action {
			asked = append(asked, e.Name)
		}
	}
	if want := []string{"pre-dump", "network-lock", "post-dump", "network-unlock"}; !slices.Equal(asked, want) {
		t.Errorf("CRIU's actions are %v, want %v", asked, want)
	}
	p.holdAndKill()
	awaitReport(t, "the end", ofOutcome(journal.Ended))
	p.dumped.engine.remove(p.dumped)
	p.app.move(p.app.nextNetns(freeze(t)))
	p.restore()
	restored := awaitReport(t, "the restore", func(r *journal.Report) error {
		if len(r.Flows) == 0 {
			return errors.New("no first byte was seen yet")
		}
		return ofOutcome(journal.Restored)(r)
	})
	_, last, carried := restored.FirstByte()
	if d, ok := restored.FrozenFor(); !ok || d <= 0 || restored.Connections == 0 || carried != restored.Connections || last <= 0 || last > patience {
		t.Errorf("the restore: frozen %v, %d connections, first bytes on %d up to %v", d, restored.Connections, carried, last)
	}

	all := reports(t)
	if len(all) < 3 {
		t.Fatalf("%d reports, want one of each transaction", len(all))
	}
	text := mustRun(t, "", "", netfreeze, "log")
	for _, r := range all {
		if !strings.Contains(text, r.ID) {
			t.Errorf("netfreeze log lacks %s:\n%s", r.ID, text)
		}
	}
	text = mustRun(t, "", "", netfreeze, "report", restored.ID)
	for _, want := range []string{"the tasks run again", "the network is frozen", "the network is thawed", "CRIU: pre-restore", restored.Flows[0].Remote.String()} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	page := mustRun(t, "", "", netfreeze, "report", restored.ID, "-o", "html")
	checkXML(t, page)
	keep(t, "report.html", page)
	keep(t, "report.txt", text)
	metrics := mustRun(t, "", "", netfreeze, "status", "--metrics")
	for _, want := range []string{"netfreeze_freezes{state=\"held\"} 0", "netfreeze_reports{op=\"restore\",outcome=\"restored\"}", "netfreeze_last_frozen_seconds{op=\"restore\"}", "netfreeze_last_first_byte_seconds "} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %q:\n%s", want, metrics)
		}
	}
}

// checkXML makes sure that every element of a page is closed where it must be.
func checkXML(t *testing.T, page string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("the page is malformed: %v", err)
			return
		}
	}
}

// keep writes a file for whoever wants to look at it, where the caller asks for that.
func keep(t *testing.T, name, text string) {
	t.Helper()
	dir := os.Getenv("NETFREEZE_KEEP")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Error(err)
	}
}
