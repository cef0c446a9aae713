// SPDX-License-Identifier: Apache-2.0

package code_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// top is the module's directory.
const top = "../.."

// uncoded are errors that begin without a code: nobody meets them as they are, for a
// reason that the comment beside each names.
var uncoded = []string{
	`"nothing is frozen"`,                         // rules.ErrNotFrozen: what was asked for is so already
	`"only nftables can write into TCP segments"`, // rules.ErrWindows: then it is done without
	`"%s = %q: not one of %s%s"`,                  // internal/config: the caller knows whose value it is
	`doing + ": " + err.Error`,                    // internal/hook: passes another error on
	`answer`,                                      // internal/hook: the settler's, with its code
}

// TestEveryErrorHasACode reads the source of all that is installed: an error that begins
// there, which wraps none, is made by code.New.
func TestEveryErrorHasACode(t *testing.T) {
	for _, dir := range []string{"cmd", "hooks", "install", "internal", "rules"} {
		err := filepath.WalkDir(filepath.Join(top, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "fake" || d.Name() == "testdata" || d.Name() == "nstest" || d.Name() == "code" || d.Name() == "gen") {
				return fs.SkipDir // for tests and building, and this package
			}
			if filepath.Ext(path) == ".go" && !strings.HasSuffix(path, "_test.go") {
				checkFile(t, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func checkFile(t *testing.T, path string) {
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, source, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := func(n ast.Node) string { return string(source[n.Pos()-1 : n.End()-1]) }
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		if name := text(call.Fun); name != "errors.New" && name != "fmt.Errorf" {
			return true
		}
		said := text(call.Args[0])
		if strings.Contains(said, "%w") || slices.ContainsFunc(uncoded, func(u string) bool { return strings.Contains(said, u) }) {
			return true
		}
		t.Errorf("%s: this error has no code: make it with code.New", fmt.Sprint(set.Position(call.Pos()), ": ", said))
		return true
	})
}

// untested are codes that no test can bring about here.
var untested = map[string]string{
	"WrongNetNS": "two processes would have to get one number at the right moment",
	"TimeNS":     "newer kernels have exec enter the other time namespace",
	"System":     "TestAny has it, and the next two",
	"Forbidden":  "",
	"NoResource": "",
}

// TestEveryCodeIsTested looks for each code in the tests of other packages: by its name
// or its number.
func TestEveryCodeIsTested(t *testing.T) {
	var tests strings.Builder
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "code" || d.Name() == "build" || d.Name() == ".git"):
			return fs.SkipDir
		case strings.HasSuffix(path, "_test.go"):
			tests.WriteString(read(t, path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\t(\w+) +Code = (\d{3})`).FindAllStringSubmatch(read(t, "code.go"), -1) {
		_, excused := untested[m[1]]
		if !excused && !strings.Contains(tests.String(), "NF"+m[2]) && !strings.Contains(tests.String(), "code."+m[1]) {
			t.Errorf("no test expects %s, NF%s", m[1], m[2])
		}
	}
}

var number = regexp.MustCompile(`\bNF(\d{3})\b`)

// TestEveryCodeIsExplained compares the codes with the rows of the page that explains
// them, in both directions, and their order.
func TestEveryCodeIsExplained(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^\t\w+ +Code = (\d{3}) // \S`)
	row := regexp.MustCompile(`(?m)^\| <a id="nf(\d{3})"></a>NF(\d{3}) \| [^|]+ \| [^|]+ \|$`)
	var want, got []string
	for _, m := range declared.FindAllStringSubmatch(read(t, "code.go"), -1) {
		want = append(want, m[1])
	}
	page := read(t, filepath.Join(top, "docs/troubleshooting.md"))
	for _, m := range row.FindAllStringSubmatch(page, -1) {
		if m[1] != m[2] {
			t.Errorf("the anchor nf%s is that of NF%s", m[1], m[2])
		}
		got = append(got, m[2])
	}
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("the page explains %v, want %v", got, want)
	}
	for _, m := range number.FindAllStringSubmatch(page, -1) {
		if !slices.Contains(want, m[1]) {
			t.Errorf("the page names %s, which is no code", m[0])
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
