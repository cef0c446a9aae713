// SPDX-License-Identifier: Apache-2.0

package expect

import (
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheckPatterns(t *testing.T) {
	t.Parallel()
	for p, good := range map[string]bool{
		"shop/db-0": true, "shop/db-*": true, "*/*": true, "s?/[a-c]*": true,
		"": false, "shop": false, "*": false, "/db": false, "shop/": false, "a/b/c": false, "shop/[a": false, `shop/\`: false,
	} {
		if err := CheckPatterns([]string{"a/b", p}); (err == nil) != good {
			t.Errorf("%q: %v", p, err)
		}
	}
	must(t, CheckPatterns(nil))
}

// TestExpected has an expectation go before a pattern, and nothing match nothing.
func TestExpected(t *testing.T) {
	e, err := Pod("shop/db-0")
	must(t, err)
	must(t, e.Expect(time.Minute))
	for _, c := range []struct {
		pod      string
		patterns []string
		want     string
	}{
		{"shop/db-0", []string{"shop/*"}, "pod shop/db-0 is expected"},
		{"shop/db-1", []string{"x/y", "shop/*"}, `the pod matches "shop/*"`},
		{"shop/db-1", nil, ""},
		{"", []string{"*/*"}, ""},
	} {
		why, err := Expected(Newcomer{Container: identity.Container{Pod: c.pod}}, c.patterns)
		must(t, err)
		got := ""
		if why != nil {
			got = why.String()
		}
		if got != c.want {
			t.Errorf("%q, %v: got %q, want %q", c.pod, c.patterns, got, c.want)
		}
	}
	_, err = e.Cancel()
	must(t, err)
}
