// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra/doc"

	"github.com/criu-netfreeze/criu-netfreeze/internal/cli"
)

// manDate stands on every manual page. It is a constant, so that a page changes only if
// its command does.
var manDate = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// writeMan writes a manual page for each command into a directory.
func writeMan(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := cli.New()
	root.DisableAutoGenTag = true
	return doc.GenManTree(root, &doc.GenManHeader{
		Section: "8", Date: &manDate, Source: project, Manual: project,
	}, dir)
}

// writeCompletions writes the completions into a directory, under the names by which
// each shell finds them.
func writeCompletions(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := cli.New()
	if err := root.GenBashCompletionFileV2(filepath.Join(dir, "netfreeze"), true); err != nil {
		return err
	}
	if err := root.GenZshCompletionFile(filepath.Join(dir, "_netfreeze")); err != nil {
		return err
	}
	return root.GenFishCompletionFile(filepath.Join(dir, "netfreeze.fish"), true)
}
