// SPDX-License-Identifier: Apache-2.0

package netns

import "testing"

func TestNsfsMount(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, want string }{
		{"500 24 0:4 net:[4026532248] /run/netns/a rw shared:3 - nsfs nsfs rw", "/run/netns/a"},
		{`500 24 0:4 net:[4026532248] /run/a\040b\134c rw - nsfs nsfs rw`, `/run/a b\c`},
		{`500 24 0:4 net:[4026532248] /run/\9x\04 rw - nsfs nsfs rw`, `/run/\9x\04`},
		{"500 24 0:4 mnt:[4026532248] /run/ns/mnt rw - nsfs nsfs rw", ""},
		{"24 1 0:21 / /run rw,nosuid shared:2 - tmpfs tmpfs rw,mode=755", ""},
		{"500 24 net:[1] - nsfs nsfs rw", ""},
		{" - nsfs ", ""},
		{"", ""},
	} {
		if got, ok := nsfsMount(c.line); got != c.want || ok != (c.want != "") {
			t.Errorf("%q: got %q, %t, want %q", c.line, got, ok, c.want)
		}
	}
}

func FuzzNsfsMount(f *testing.F) {
	f.Add("500 24 0:4 net:[4026532248] /run/netns/a rw shared:3 - nsfs nsfs rw")
	f.Add(`1 2 3 net:[ \04 - nsfs `)
	f.Fuzz(func(t *testing.T, line string) {
		point, ok := nsfsMount(line)
		if !ok && point != "" {
			t.Errorf("%q: %q without a mount", line, point)
		}
	})
}
