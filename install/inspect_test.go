// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestInspect reads a block back as it was written, and says what stands beside it.
func TestInspect(t *testing.T) {
	tr := newTree(t)
	if c, err := Inspect(tr.root, ConfPath("runc")); err != nil || c.Exists || c.Path != "/etc/criu/runc.conf" {
		t.Errorf("there is none: %+v, %v", c, err)
	}
	want := Block{Scripts: []string{hook}, NetworkLock: "skip", ManageCgroups: "ignore", LogFile: "/var/log/c"}
	content, _, err := Add([]byte("file-locks\nnetwork-lock nftables\n--shell-job\ntcp-close\r\n"), want)
	if err != nil {
		t.Fatal(err)
	}
	tr.write("/etc/criu/runc.conf", "tcp-close\n"+string(content), 0o644)
	c, err := Inspect(tr.root, ConfPath("runc"))
	if err != nil || !c.Exists || c.Block == nil || c.Edited || c.Marker != nil || c.Block.Split() {
		t.Fatalf("%+v, %v", c, err)
	}
	if got := c.Block; !slices.Equal(got.Scripts, want.Scripts) || got.NetworkLock != "skip" || got.ManageCgroups != "ignore" || got.LogFile != want.LogFile {
		t.Errorf("the block is %+v", got)
	}
	problems := map[int]string{1: "closes the established connections", 10: "stands after our skip and wins", 11: "adds the dashes itself", 12: "CR LF"}
	for _, s := range c.Statements {
		if want := problems[s.Line]; want == "" && s.Problem != "" || !strings.Contains(s.Problem, want) {
			t.Errorf("line %d: %q, want %q", s.Line, s.Problem, want)
		}
		if s.InBlock != (s.Line > 2 && s.Line < 8) || s.Fatal != (s.Line == 11 || s.Line == 12) {
			t.Errorf("line %d: %+v", s.Line, s)
		}
	}
	tr.write("/etc/criu/crun.conf", strings.Replace(string(content), "tcp-established\n", "", 1), 0o644)
	if c, err := Inspect(tr.root, ConfPath("crun")); err != nil || !c.Edited {
		t.Errorf("it was edited: %+v, %v", c, err)
	}
}

// FuzzInspect reads anything, and finds every block that Add writes.
func FuzzInspect(f *testing.F) {
	files, err := filepath.Glob("../testdata/criuconf/*.conf")
	if err != nil || len(files) == 0 {
		f.Fatal("no samples: ", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		var c Conf
		c.read(content)
		lines := strings.Count(string(content), "\n") + 1
		for _, s := range c.Statements {
			if s.Line < 1 || s.Line > lines {
				t.Errorf("line %d of %d", s.Line, lines)
			}
		}
		added, _, err := Add(content, Block{Scripts: []string{"/hook"}, NetworkLock: "skip"})
		if err != nil {
			return
		}
		var after Conf
		after.read(added)
		if after.Block == nil || after.Edited || after.Block.NetworkLock != "skip" || !slices.Equal(after.Block.Scripts, []string{"/hook"}) {
			t.Errorf("%q: %+v", added, after)
		}
	})
}
