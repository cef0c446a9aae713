// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/e2e/internal/pages"
)

// docs are the pages, as "make e2e" shares them into the lab, the README among them.
var docs = filepath.Join(build, "docs")

// readPage returns the code of each block of a kind (pages.Recipe, pages.Run), by "NAME
// PART", and these in the order of the page.
func readPage(t *testing.T, page, kind string) (parts map[string]string, order []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(docs, page))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := pages.Read(string(text))
	if err != nil {
		t.Fatalf("%s: %v", page, err)
	}
	parts = map[string]string{}
	for _, b := range blocks {
		if b.Kind == kind {
			name := b.Name + " " + b.Part
			parts[name] = b.Code
			order = append(order, name)
		}
	}
	return parts, order
}

// shell runs blocks of code one after the other, as if they were typed into one shell:
// variables, functions and the current directory are kept from one to the next.
type shell struct {
	t    *testing.T
	dir  string   // the first current directory, and of programs that are found first
	env  []string // more of it for the commands
	fill *strings.Replacer
}

// typing is the time limit for a block of code.
const typing = 4 * patience

// keepVars writes what the next block is to find. Of variables these are all that the
// pages set.
const keepVars = `
{ declare -f; declare -p POD CONTAINER doc 2>/dev/null || true; printf 'cd %q\n' "$PWD"; } >"$TYPED/.vars"
`

// run runs a block and returns its output. It stops at the first command that fails.
func (s *shell) run(code string) (string, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), typing)
	defer cancel()
	if s.fill != nil {
		code = s.fill.Replace(code)
	}
	cmd := newCommand(ctx, "", "bash", "-c", "set -e; [ ! -e \"$TYPED/.vars\" ] || . \"$TYPED/.vars\"\n"+code+keepVars)
	cmd.Dir = s.dir
	cmd.Env = append(append(os.Environ(), "TYPED="+s.dir, "PATH="+s.dir+":"+os.Getenv("PATH")), s.env...)
	out, err := os.Create(filepath.Join(s.dir, ".output"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out // a file: what runs on in the background keeps it open
	err = cmd.Run()
	text, _ := os.ReadFile(out.Name())
	if err != nil {
		err = fmt.Errorf("%w:\n%s\n%s", err, code, text)
	}
	return string(text), err
}

// must is like run, but ends the test if a command fails.
func (s *shell) must(code string) string {
	s.t.Helper()
	out, err := s.run(code)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// program puts a command, a shell script, first in the path.
func (s *shell) program(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// reader follows a page: it runs the parts of a scenario, in order, and logs how long each
// has taken.
type reader struct {
	shell
	name  string // of the scenario
	parts map[string]string
	left  []string // what was not run yet
}

// newReader opens a page at a scenario.
func newReader(t *testing.T, page, scenario string) *reader {
	t.Helper()
	r := &reader{shell: shell{t: t, dir: t.TempDir()}, name: scenario}
	all, order := readPage(t, page, pages.Run)
	r.parts = all
	for _, name := range order {
		if strings.HasPrefix(name, scenario+" ") {
			r.left = append(r.left, name)
		}
	}
	return r
}

// next is the code of the scenario's next part, which has to be the one that the test
// expects.
func (r *reader) next(part string) string {
	r.t.Helper()
	if len(r.left) == 0 || r.left[0] != r.name+" "+part {
		r.t.Fatalf("the page goes on with %q, the test with %q", r.left, part)
	}
	r.left = r.left[1:]
	return r.parts[r.name+" "+part]
}

// step runs the next part and returns its output.
func (r *reader) step(part string) string {
	r.t.Helper()
	code, begun := r.next(part), time.Now()
	out := r.must(code)
	r.t.Logf("%s, %s:\n%s\n%s", part, time.Since(begun).Round(time.Millisecond), code, out)
	return out
}

// done checks that all of the scenario was run.
func (r *reader) done() {
	r.t.Helper()
	if len(r.left) > 0 {
		r.t.Errorf("no test runs %q", r.left)
	}
}
