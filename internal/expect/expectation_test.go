// SPDX-License-Identifier: Apache-2.0

package expect

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// expectation makes one of a word: a pod, an address or a container.
func expectation(t *testing.T, what string) Expectation {
	t.Helper()
	if strings.Contains(what, "/") {
		e, err := Pod(what)
		must(t, err)
		return e
	}
	if addr, err := netip.ParseAddr(what); err == nil {
		e, err := Address(addr)
		must(t, err)
		return e
	}
	e, err := Container(what)
	must(t, err)
	return e
}

func TestFits(t *testing.T) {
	t.Parallel()
	const id = "0123456789abcdef"
	n := Newcomer{
		Container: identity.Container{ID: id, Pod: "shop/db-0"},
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	}
	for what, want := range map[string]bool{
		"shop/db-0": true, "shop/db": false, "shop/db-00": false, "shop2/db-0": false,
		"192.0.2.1": true, "192.0.2.11": false, "::ffff:192.0.2.1": true, "2001:db8:0::1": true,
		id: true, id[:12]: true, id[:11]: false, id + "0": false, "web": false,
	} {
		e := expectation(t, what)
		if e.Fits(n) != want {
			t.Errorf("%s: fits %v, want %v", &e, !want, want)
		}
		if e.Fits(Newcomer{}) {
			t.Errorf("%s fits nothing at all", &e)
		}
	}
	if (&Expectation{}).Fits(Newcomer{Addresses: []netip.Addr{{}}}) {
		t.Error("an empty expectation fits")
	}
	web := expectation(t, "web")
	if !web.Fits(Newcomer{Container: identity.Container{ID: "web"}}) {
		t.Error("a short id does not fit itself")
	}
}

func TestExpectRefuses(t *testing.T) {
	t.Parallel()
	for _, pod := range []string{"", "shop", "shop/", "/db", "a/b/c", "shop/db-*", "shop/d b", "sh\x00op/db", "shop/[a]"} {
		if e, err := Pod(pod); err == nil {
			t.Errorf("%q was accepted as %s", pod, &e)
		}
	}
	for _, id := range []string{"", "a b", "a/b", "*", "a\n"} {
		if e, err := Container(id); err == nil {
			t.Errorf("%q was accepted as %s", id, &e)
		}
	}
	for _, a := range []string{"0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "fe80::1"} {
		if e, err := Address(netip.MustParseAddr(a)); err == nil {
			t.Errorf("%s was accepted as %s", a, &e)
		}
	}
	if _, err := Address(netip.Addr{}); err == nil {
		t.Error("no address was accepted")
	}
}

// list returns what is expected, in words.
func list(t *testing.T) string {
	t.Helper()
	all, err := Expectations()
	must(t, err)
	var words []string
	for i := range all {
		words = append(words, all[i].String())
	}
	return strings.Join(words, ", ")
}

func TestExpectations(t *testing.T) {
	if got := list(t); got != "" {
		t.Fatalf("before anything was expected: %s", got)
	}
	pod, addr := expectation(t, "shop/db-0"), expectation(t, "192.0.2.1")
	must(t, pod.Expect(time.Hour))
	must(t, addr.Expect(time.Minute))
	must(t, pod.Expect(2*time.Hour))
	if got := list(t); got != "address 192.0.2.1, pod shop/db-0" {
		t.Errorf("got %s", got)
	}
	must(t, pod.Expect(30*time.Second)) // now it ends first
	if got := list(t); got != "pod shop/db-0, address 192.0.2.1" {
		t.Errorf("got %s", got)
	}
	all, err := Expectations()
	must(t, err)
	must(t, all[0].Match("a test"))
	again, err := Expectations()
	must(t, err)
	if again[0].By != "a test" || again[0].Matched.IsZero() || !again[0].Until.Equal(all[0].Until) {
		t.Errorf("after a match: %+v", again[0])
	}

	must(t, addr.Expect(time.Millisecond))
	for deadline := time.Now().Add(10 * time.Second); list(t) != "pod shop/db-0"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("an expectation whose time is over is still there: %s", list(t))
		}
	}
	// Nothing has met it, which is told of for a day.
	unmet, err := Unmet()
	must(t, err)
	if len(unmet) != 1 || unmet[0].String() != "address 192.0.2.1" {
		t.Errorf("unmet: %v", unmet)
	}
	old := unmet[0]
	old.Until = time.Now().Add(-25 * time.Hour)
	must(t, old.save())
	if unmet, err := Unmet(); len(unmet) > 0 || err != nil {
		t.Errorf("unmet a day later: %v, %v", unmet, err)
	}
	// Records of freezes are something else.
	if records, err := record.All(); len(records) > 0 || err != nil {
		t.Errorf("records: %v, %v", records, err)
	}
	must(t, os.WriteFile(filepath.Join(expectDir, "bad.json"), []byte("{"), 0o600))
	if all, err := Expectations(); len(all) != 1 || err == nil || !strings.Contains(err.Error(), "bad.json") {
		t.Errorf("with a file that cannot be read: %v, %v", all, err)
	}
	must(t, os.Remove(filepath.Join(expectDir, "bad.json")))
	for _, want := range []bool{true, false} {
		if was, err := pod.Cancel(); was != want || err != nil {
			t.Errorf("cancelled: %v, %v, want %v", was, err, want)
		}
	}
	if left, err := os.ReadDir(expectDir); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func FuzzExpectPod(f *testing.F) {
	f.Add("shop/db-0")
	f.Add("../../etc/passwd")
	f.Fuzz(func(t *testing.T, pod string) {
		e, err := Pod(pod)
		if err != nil {
			return
		}
		if !e.Fits(Newcomer{Container: identity.Container{Pod: pod}}) {
			t.Errorf("%q does not fit itself", pod)
		}
		if filepath.Dir(e.path()) != expectDir {
			t.Errorf("%q leads to %s", pod, e.path())
		}
	})
}
