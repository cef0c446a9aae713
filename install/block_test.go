// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	samples = "../testdata/criuconf"
	hook    = "/usr/libexec/criu-netfreeze/netfreeze-hook"
)

// sampleFiles returns the samples that a pattern matches, by file name.
func sampleFiles(t testing.TB, pattern string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(samples, pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no samples for %s: %v", pattern, err)
	}
	files := map[string][]byte{}
	for _, p := range paths {
		if files[filepath.Base(p)], err = os.ReadFile(p); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func full() Block {
	return Block{Scripts: []string{hook}, NetworkLock: "skip", ManageCgroups: "ignore", LogFile: "/var/log/criu.log"}
}

func TestAdd(t *testing.T) {
	tests := []struct {
		name  string
		in    string
		block Block
		want  string
	}{
		{"least", "", Block{Scripts: []string{hook}}, `# BEGIN netfreeze: written by netfreeze install, taken out by netfreeze uninstall
action-script /usr/libexec/criu-netfreeze/netfreeze-hook
tcp-established
# END netfreeze
`},
		{"all, above what is there", "action-script /other\nverbosity 4", full(), `# BEGIN netfreeze: written by netfreeze install, taken out by netfreeze uninstall
action-script /usr/libexec/criu-netfreeze/netfreeze-hook
tcp-established
network-lock skip
manage-cgroups=ignore
log-file /var/log/criu.log
# END netfreeze
action-script /other
verbosity 4`},
		{
			"replaced, to the top, origin kept",
			"a\n  # BEGIN netfreeze: x; the file too; the directory too\r\nold\r\n# END netfreeze\r\nb\n",
			Block{Scripts: []string{"/a", "/b"}},
			`# BEGIN netfreeze: written by netfreeze install, taken out by netfreeze uninstall; the file too; the directory too
action-script /a
action-script /b
tcp-established
# END netfreeze
a
b
`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := Add([]byte(tt.in), tt.block)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAddRemoveSamples(t *testing.T) {
	for name, before := range sampleFiles(t, "*.conf") {
		t.Run(name, func(t *testing.T) { roundTrip(t, before, full()) })
	}
}

// roundTrip adds a block, adds it again, changes it and removes it.
func roundTrip(t *testing.T, before []byte, b Block) {
	t.Helper()
	once, _, err := Add(before, b)
	if err != nil {
		t.Fatal(err)
	}
	twice, _, err := Add(once, b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(once, twice) {
		t.Errorf("added twice: got %q, want %q", twice, once)
	}
	other, _, err := Add(once, Block{Scripts: []string{"/other"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{once, other} {
		after, err := Remove(content)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(after, before) {
			t.Errorf("removed: got %q, want %q", after, before)
		}
	}
}

func TestRemoveWithoutBlock(t *testing.T) {
	for name, before := range sampleFiles(t, "*.conf") {
		if after, err := Remove(before); err != nil || !bytes.Equal(after, before) {
			t.Errorf("%s: got %q, %v", name, after, err)
		}
	}
}

func TestMalformedMarkers(t *testing.T) {
	want := map[string]string{
		"no-end.conf":   `line 2: "# BEGIN netfreeze" without a "# END netfreeze" after it: take out the block by hand [NF801]`,
		"no-begin.conf": `line 2: "# END netfreeze" without a "# BEGIN netfreeze" before it: take out the block by hand [NF801]`,
		"twice.conf":    `line 4: "# BEGIN netfreeze" again, after line 1: take out the block by hand [NF801]`,
		"nested.conf":   `line 2: "# BEGIN netfreeze" again, after line 1: take out the block by hand [NF801]`,
		"swapped.conf":  `line 1: "# END netfreeze" without a "# BEGIN netfreeze" before it: take out the block by hand [NF801]`,
	}
	for name, content := range sampleFiles(t, "malformed/*.conf") {
		_, _, addErr := Add(content, full())
		_, removeErr := Remove(content)
		for _, err := range []error{addErr, removeErr} {
			var m *MarkerError
			if !errors.As(err, &m) || m.Error() != want[name] {
				t.Errorf("%s: got %v, want %s", name, err, want[name])
			}
		}
	}
}

func TestAddRefuses(t *testing.T) {
	script := func(path string) Block { return Block{Scripts: []string{path}} }
	tests := map[string]struct {
		block Block
		want  string
	}{
		"none":         {Block{}, `no action-script given [NF101]`},
		"relative":     {script("bin/hook"), `action-script "bin/hook": must be an absolute path [NF802]`},
		"empty":        {script(""), `action-script "": must be an absolute path [NF802]`},
		"space":        {script("/a b"), `action-script "/a b": CRIU's configuration files cannot hold a path with ' ' in it; use another one [NF802]`},
		"comment":      {script("/a#b"), `action-script "/a#b": CRIU's configuration files cannot hold a path with '#' in it; use another one [NF802]`},
		"quote":        {script(`/a"b`), `action-script "/a\"b": CRIU's configuration files cannot hold a path with '"' in it; use another one [NF802]`},
		"backslash":    {script(`/a\b`), `action-script "/a\\b": CRIU's configuration files cannot hold a path with '\\' in it; use another one [NF802]`},
		"newline":      {script("/a\nb"), `action-script "/a\nb": CRIU's configuration files cannot hold a path with '\n' in it; use another one [NF802]`},
		"delete":       {script("/a\x7f"), `action-script "/a\x7f": CRIU's configuration files cannot hold a path with '\x7f' in it; use another one [NF802]`},
		"lock":         {Block{Scripts: []string{"/a"}, NetworkLock: "iptables"}, `network-lock "iptables": not one of nftables, skip [NF101]`},
		"cgroups":      {Block{Scripts: []string{"/a"}, ManageCgroups: "on"}, `manage-cgroups "on": not one of none, props, soft, full, strict, ignore [NF101]`},
		"log and more": {Block{Scripts: []string{"/a"}, LogFile: "x", NetworkLock: "y"}, "log-file \"x\": must be an absolute path [NF802]\nnetwork-lock \"y\": not one of nftables, skip [NF101]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, _, err := Add(nil, tt.block); err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func FuzzAddRemove(f *testing.F) {
	for _, content := range sampleFiles(f, "*.conf") {
		f.Add(content)
	}
	for _, content := range sampleFiles(f, "malformed/*.conf") {
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		b, err := findBlock(content)
		if err != nil {
			if _, _, err := Add(content, full()); err == nil {
				t.Error("malformed markers accepted by Add")
			}
			return
		}
		roundTrip(t, b.cut(content), full())
	})
}
