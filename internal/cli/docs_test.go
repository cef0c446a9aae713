// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/criu-netfreeze/criu-netfreeze/internal/cli"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

// Where commands are named in the documentation: in code, as a span or a line of a block.
var (
	span    = regexp.MustCompile("`([^`]+)`")
	command = regexp.MustCompile(`(?:^|[\s/(])netfreeze((?: +[^\s;|&)]+)+)`)
	word    = regexp.MustCompile(`^[a-z][a-z-]*$`)
	flag    = regexp.MustCompile(`^\[?(--[a-z][a-z-]*|-[a-zA-Z])\b`)
	setting = regexp.MustCompile(`^[a-z-]+ = ("[^"]*"|true|false|[0-9]+)$`)
)

// documents are the README and the pages of docs/.
func documents(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%q, %v", paths, err)
	}
	all := map[string]string{}
	for _, path := range append(paths, "../../README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(path, "../../")] = string(text)
	}
	return all
}

// codeOf returns the code in a page: each line of its blocks, and each span, whose line
// breaks are blanks then.
func codeOf(text string) (code []string) {
	var prose strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			before, _, _ := strings.Cut(line, " # ")
			code = append(code, strings.TrimSpace(before))
		} else {
			prose.WriteString(line)
		}
	}
	for _, m := range span.FindAllStringSubmatch(prose.String(), -1) {
		code = append(code, strings.Join(strings.Fields(m[1]), " "))
	}
	return code
}

// TestDocumentedCommands makes sure that each command that the documentation names exists,
// with the flags that it is given.
func TestDocumentedCommands(t *testing.T) {
	commands, flags := 0, 0
	for page, text := range documents(t) {
		for _, code := range codeOf(text) {
			for _, m := range command.FindAllStringSubmatch(code, -1) {
				n, wrong := check(strings.Fields(m[1]))
				commands++
				flags += n
				if wrong != "" {
					t.Errorf("%s: %q: there is no %s", page, code, wrong)
				}
			}
		}
	}
	t.Logf("%d commands with %d flags", commands, flags)
	if commands < 100 || flags < 20 {
		t.Error("there should be more")
	}
}

// check looks for a command and its flags, and names the first that there is not.
func check(words []string) (flags int, wrong string) {
	cmd := cli.New()
	cmd.InitDefaultVersionFlag()
	for i, w := range words {
		if strings.Contains(w, "$(") {
			break // what follows is another command
		}
		if f := flag.FindStringSubmatch(w); f != nil {
			if !hasFlag(cmd, f[1]) {
				return flags, f[1] + " of " + cmd.CommandPath()
			}
			flags++
			continue
		}
		w = strings.TrimRight(w, ",.:")
		if !word.MatchString(w) || !cmd.HasSubCommands() {
			continue
		}
		sub := find(cmd, w)
		switch {
		case sub != nil:
			cmd = sub
		case i == 0 && w != "help" && w != "completion":
			return flags, "command " + w
		}
	}
	return flags, ""
}

func find(cmd *cobra.Command, name string) *cobra.Command {
	for _, sub := range cmd.Commands() {
		if sub.Name() == name {
			return sub
		}
	}
	return nil
}

func hasFlag(cmd *cobra.Command, name string) bool {
	if name == "--help" || name == "-h" {
		return true
	}
	lookup := func(set *pflag.FlagSet) *pflag.Flag {
		if long, ok := strings.CutPrefix(name, "--"); ok {
			return set.Lookup(long)
		}
		return set.ShorthandLookup(name[1:])
	}
	return lookup(cmd.LocalFlags()) != nil || lookup(cmd.InheritedFlags()) != nil || lookup(cmd.PersistentFlags()) != nil
}

// TestCheckFindsMistakes makes sure that the test above would find what is not there.
func TestCheckFindsMistakes(t *testing.T) {
	for line, want := range map[string]string{
		"thaw --criu-leftovers TARGET": "",
		"config check ./x":             "",
		"status [-o json]":             "",
		"melt TARGET":                  "command melt",
		"thaw --now TARGET":            "--now of netfreeze thaw",
		"status -x":                    "-x of netfreeze status",
		`thaw "$(other --format x)"`:   "",
	} {
		if _, wrong := check(strings.Fields(line)); wrong != want {
			t.Errorf("%s: %q, want %q", line, wrong, want)
		}
	}
}

// TestDocumentedSettings makes sure that each setting that is named in a sentence is valid.
func TestDocumentedSettings(t *testing.T) {
	count := 0
	for page, text := range documents(t) {
		for _, code := range codeOf(text) {
			if !setting.MatchString(code) {
				continue
			}
			count++
			table := ""
			if strings.HasPrefix(code, "level = ") || strings.HasPrefix(code, "file = ") {
				table = "[log]\n"
			}
			if strings.HasPrefix(code, "pod = ") {
				continue // of a table whose block is checked as a whole
			}
			if _, err := config.Parse([]byte(table+code+"\n"), page); err != nil {
				t.Errorf("%s: %s: %v", page, code, err)
			}
		}
	}
	t.Logf("%d settings", count)
	if count == 0 {
		t.Error("there are none")
	}
}
