// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// TestVersions reads records of this version and of the first one, which had none, and
// refuses those of a later program with the remedy.
func TestVersions(t *testing.T) {
	fresh(t)
	must(t, (&Record{ID: "1@1", Phase: Held}).Save())
	text, err := os.ReadFile(path("1@1"))
	must(t, err)
	if !strings.Contains(string(text), `"version":1`) {
		t.Errorf("a record without a version: %s", text)
	}
	for name, tc := range map[string]struct{ text, fails string }{
		"none":  {`{"id":"1@1","phase":"held"}`, ""},
		"this":  {`{"version":1,"id":"1@1","phase":"held"}`, ""},
		"later": {`{"version":2,"id":"1@1","phase":"held"}`, "use the program that wrote it"},
		"other": {`{"version":1,"id":"2@2","phase":"held"}`, `it is the record of "2@2"`},
		"empty": {``, "remove the file"},
	} {
		must(t, os.WriteFile(path("1@1"), []byte(tc.text), 0o600))
		r, err := Load("1@1")
		if tc.fails == "" && (err != nil || r.Phase != Held) || tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// TestNewerIsInForce keeps a namespace of which a later program has a record from being
// taken for one that nobody has frozen. A damaged record keeps nobody from anything.
func TestNewerIsInForce(t *testing.T) {
	fresh(t)
	ns := nstest.New(t)
	text := fmt.Sprintf(`"netns":{"Dev":%d,"Ino":%d}`, ns.ID().Dev, ns.ID().Ino)
	must(t, os.WriteFile(path("1@1"), []byte(`{"version":1,`+text+`,"phase":`), 0o600))
	if _, err := Of(ns); err != nil {
		t.Errorf("with a damaged one: %v", err)
	}
	bad, err := Unreadable()
	must(t, err)
	if len(bad) != 1 || bad[0].ID != "1@1" || bad[0].Newer != 0 {
		t.Fatalf("damaged: %v", bad)
	}
	if id, ok := bad[0].NetNS(); !ok || id != ns.ID() {
		t.Errorf("it is about %s", id)
	}
	must(t, os.WriteFile(path("2@2"), []byte(`{"version":2,`+text+`,"phase":{"a":1}}`), 0o600))
	var unreadable *UnreadableError
	if _, err := Of(ns); !errors.As(err, &unreadable) || unreadable.Newer != 2 {
		t.Errorf("with one of a later version: %v", err)
	}
	if _, err := Of(nstest.New(t)); err != nil {
		t.Errorf("in another namespace: %v", err)
	}
}
