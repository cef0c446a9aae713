// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/e2e/internal/pages"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

func TestRead(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []pages.Block
	}{
		"none": {"text\n    goes on, indented\n", nil},
		"indented": {
			"text\n\n    a\n\n      b\n\ntext\n",
			[]pages.Block{{Line: 3, Code: "a\n\n  b\n"}},
		},
		"in a list": {
			"1. text\n   more\n\n   <!-- not run: it is long -->\n\n       a\n       b\n",
			[]pages.Block{{Line: 6, Kind: pages.NotRun, Name: "it is long", Code: "a\nb\n"}},
		},
		"fenced": {
			"text\n<!-- config -->\n```toml\na = 1\n\n    b\n```\n    text\n",
			[]pages.Block{{Line: 3, Kind: pages.Config, Code: "a = 1\n\n    b\n", Fenced: true}},
		},
		"named": {
			"<!-- recipe podman move -->\n\n    a\n\n<!-- run new step -->\n\n    b\n\ntext <!-- run x -->\n",
			[]pages.Block{
				{Line: 3, Kind: pages.Recipe, Name: "podman", Part: "move", Code: "a\n"},
				{Line: 7, Kind: pages.Run, Name: "new", Part: "step", Code: "b\n"},
			},
		},
		"for one block only": {
			"<!-- config -->\n\n    a\n\ntext\n\n    b\n",
			[]pages.Block{{Line: 3, Kind: pages.Config, Code: "a\n"}, {Line: 7, Code: "b\n"}},
		},
		"another comment": {"<!-- matrix -->\n\n| a |\n", nil},
	} {
		got, err := pages.Read(test.text)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, test.want)
		}
	}
	for text, want := range map[string]string{
		"```\na\n":                                 "line 1 has no end",
		"<!-- not run: -->\n\n    a\n":             "no reason",
		"<!-- not run -->\n\n    a\n":              "is \"not run:\" meant",
		"<!-- run x -->\n\n    a\n":                "a name and a part",
		"<!-- config -->\n":                        "without a block",
		"<!-- config -->\n<!-- config -->\n\n    ": "line 1 has no block",
	} {
		if _, err := pages.Read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("text\n\n    a\n\n```sh\nb\n```\n<!-- run a b -->\n\n    c")
	f.Fuzz(func(t *testing.T, text string) {
		blocks, err := pages.Read(text)
		if err != nil {
			return
		}
		for _, b := range blocks {
			if b.Line < 1 || b.Line > strings.Count(text, "\n")+1 || b.Code != "" && !strings.HasSuffix(b.Code, "\n") {
				t.Errorf("%+v", b)
			}
		}
	})
}

// TestEveryBlock makes sure that each block of code in the documentation is run by a test,
// or says why it is not.
func TestEveryBlock(t *testing.T) {
	const root = "../../.."
	tests := ""
	sources, err := filepath.Glob(filepath.Join(root, "e2e", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sources {
		tests += read(t, path)
	}
	count := map[string]int{}
	for _, path := range append(glob(t, filepath.Join(root, "docs", "*.md")), filepath.Join(root, "README.md")) {
		page := strings.TrimPrefix(path, root+"/")
		blocks, err := pages.Read(read(t, path))
		if err != nil {
			t.Errorf("%s: %v", page, err)
		}
		seen := map[string]bool{}
		for _, b := range blocks {
			count[b.Kind]++
			first, _, _ := strings.Cut(b.Code, "\n")
			name := b.Name + " " + b.Part
			switch b.Kind {
			case "":
				t.Errorf("%s:%d: %q is neither run by a test nor marked with <!-- not run: REASON -->", page, b.Line, first)
			case pages.Run, pages.Recipe:
				if seen[name] {
					t.Errorf("%s:%d: %q is there twice", page, b.Line, name)
				}
				seen[name] = true
			case pages.Config:
				if _, err := config.Parse([]byte(b.Code), page); err != nil {
					t.Errorf("%s:%d: %v", page, b.Line, err)
				}
			}
			// The scenario by its name; which of its parts a test runs that test checks.
			if b.Kind == pages.Run && !strings.Contains(tests, `"`+b.Name+`"`) {
				t.Errorf("%s:%d: no test in e2e names the scenario %q", page, b.Line, b.Name)
			}
		}
	}
	t.Logf("blocks: %v", count)
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
