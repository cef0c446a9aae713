// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// completions asks for what a shell would offer after the words.
func completions(t *testing.T, words ...string) []string {
	t.Helper()
	out, _, err := runCommand(New(), append([]string{"__complete"}, words...)...)
	if err != nil {
		t.Fatalf("%v: %v", words, err)
	}
	var offers []string
	for line := range strings.Lines(out) {
		if offer := strings.TrimSpace(line); offer != "" && !strings.HasPrefix(offer, ":") {
			name, _, _ := strings.Cut(offer, "\t")
			offers = append(offers, name)
		}
	}
	return offers
}

// TestComplete offers what is held to thaw and kill, and names of namespaces to freeze.
func TestComplete(t *testing.T) {
	const id = "4820aa11bb22cc33dd44"
	r := saved(t, id)
	r.NetNS, r.Path = netns.ID{Dev: 4, Ino: 4026532001}, "/run/netns/web"
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "db", "bad\x1bname", "a b"} {
		if err := os.MkdirAll("/run/netns", 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("/run/netns", name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(path) })
	}
	pid := fmt.Sprint(os.Getpid())
	held := []string{id[:12], pid, "web"}
	slices.Sort(held)
	for _, tc := range []struct {
		words, want []string
	}{
		{[]string{"thaw", ""}, held},
		{[]string{"kill", ""}, held},
		{[]string{"thaw", "4820a"}, held[slices.Index(held, id[:12]):][:1]},
		{[]string{"thaw", "x"}, nil},
		{[]string{"thaw", "web", ""}, nil},
		{[]string{"freeze", ""}, []string{"db", "web"}},
		{[]string{"status", "-o", ""}, []string{"text", "json"}},
		{[]string{"install", "--stop-after-dump", ""}, []string{"hold", "run", "isolate", "kill"}},
	} {
		if got := completions(t, tc.words...); !slices.Equal(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.words, got, tc.want)
		}
	}
}

// TestOffer leaves out names that a shell or a terminal would misread.
func TestOffer(t *testing.T) {
	for name, want := range map[string]int{"web": 1, "net:[4026532001]": 1, "": 0, "a b": 0, "$(x)": 0, "a\nb": 0, "\x1b[2J": 0} {
		if got := offer(nil, name, "what"); len(got) != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}
