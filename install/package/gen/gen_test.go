// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// files reads all files of a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

// TestManIsCurrent compares the manual pages with the commands.
func TestManIsCurrent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if err := writeMan(dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files(t, "../../../docs/man"), files(t, dir)); diff != "" {
		t.Errorf("docs/man is not what the commands say: make man (-is +should be):\n%s", diff)
	}
}

// TestCompletions makes one file for each shell.
func TestCompletions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "completions")
	if err := writeCompletions(dir); err != nil {
		t.Fatal(err)
	}
	all := files(t, dir)
	for name, want := range map[string]string{
		"netfreeze": "complete -o default -F __start_netfreeze netfreeze", "_netfreeze": "#compdef netfreeze", "netfreeze.fish": "complete -c netfreeze",
	} {
		if !strings.Contains(all[name], want) {
			t.Errorf("%s lacks %q", name, want)
		}
	}
	if len(all) != 3 {
		t.Errorf("%d files", len(all))
	}
}

const sample = `# Changelog

Words above.

## [Unreleased]

### Added

- One thing, described in so many words that it takes more than a single line of a changelog, and
  in two here.
- Another.

### Fixed

## [1.0.0] - 2026-03-04

### Added

- Everything.
`

var testPackage = pkg{Version: "1.1.0-2", Time: time.Unix(1767323045, 0).UTC()}

// TestChangelog prints CHANGELOG.md as both distributions have it.
func TestChangelog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "CHANGELOG.md")
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{
		"debian": `criu-netfreeze (1.1.0-2) unstable; urgency=medium

  [ Added ]
  * One thing, described in so many words that it takes more than a single
    line of a changelog, and in two here.
  * Another.

 -- criu-netfreeze maintainers <criu-netfreeze@users.noreply.github.com>  Fri, 02 Jan 2026 03:04:05 +0000

criu-netfreeze (1.0.0-2) unstable; urgency=medium

  [ Added ]
  * Everything.

 -- criu-netfreeze maintainers <criu-netfreeze@users.noreply.github.com>  Wed, 04 Mar 2026 00:00:00 +0000
`,
		"rpm": `- semver: "1.1.0-2"
  date: 2026-01-02T03:04:05Z
  packager: "criu-netfreeze maintainers <criu-netfreeze@users.noreply.github.com>"
  changes:
    - note: "Added: One thing, described in so many words that it takes more than a single\n  line of a changelog, and in two here."
    - note: "Added: Another."
- semver: "1.0.0-2"
  date: 2026-03-04T00:00:00Z
  packager: "criu-netfreeze maintainers <criu-netfreeze@users.noreply.github.com>"
  changes:
    - note: "Added: Everything."
`,
	} {
		var out bytes.Buffer
		if err := writeChangelog(&out, testPackage, format, path); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", format, diff)
		}
	}
}

// TestParseChangelog refuses what it would misread.
func TestParseChangelog(t *testing.T) {
	for text, ok := range map[string]bool{
		"":                          true,
		"## [Unreleased]\n":         true,
		"## [1.0.0] - 2026-02-30\n": false,
		"## [1.0.0]\n":              false,
		"## 1.0.0 - 2026-02-03\n":   false,
		"## [1.0.0] - 2026-02-03\n- above any group\n": true,
	} {
		if _, err := parseChangelog(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseChangelog(f *testing.F) {
	f.Add(sample)
	f.Add("## [Unreleased]\n### A\n- b\n c\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseChangelog(text)
		if err != nil {
			return
		}
		for i := range all {
			all[i].version = "1-1"
		}
		var out bytes.Buffer
		if err := writeDebian(&out, all); err != nil {
			t.Fatal(err)
		}
		// What dpkg takes for the beginning of a version is one.
		starts := 0
		for line := range strings.Lines(out.String()) {
			if strings.HasPrefix(line, "criu-netfreeze (") {
				starts++
			}
		}
		if starts != len(all) {
			t.Errorf("%d versions became %d", len(all), starts)
		}
	})
}

// TestClassify knows the licences that may be linked, and no others.
func TestClassify(t *testing.T) {
	const bsd = "Copyright (c) 2020 A. All rights reserved.\n\nRedistribution and use in source and\nbinary forms"
	for _, tc := range []struct{ text, spdx, copyrights string }{
		{"Apache License\n   Version 2.0, January 2004\n Copyright [yyyy]", "Apache-2.0", ""},
		{"Copyright 2019 B\n\nPermission is hereby granted, free of charge, to any person obtaining a\ncopy", "MIT", "2019 B"},
		{bsd, "BSD-2-Clause", "2020 A."},
		{bsd + " Neither the name of A", "BSD-3-Clause", "2020 A."},
		{"Mozilla Public License Version 2.0", "", ""},
	} {
		l, err := classify(tc.text)
		if l.SPDX != tc.spdx || (err == nil) != (tc.spdx != "") || l.Copyrights != tc.copyrights {
			t.Errorf("%q: %q, %q, %v", tc.text, l.SPDX, l.Copyrights, err)
		}
	}
}

// TestSBOM describes this test program: every identifier is there once, and every
// relationship is between two of them.
func TestSBOM(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := writeSBOM(&out, testPackage, []string{self + "=/usr/bin/netfreeze"}); err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{d.SPDXID: true}
	var licences []string
	for _, p := range d.Packages {
		if ids[p.SPDXID] {
			t.Errorf("%s twice", p.SPDXID)
		}
		ids[p.SPDXID] = true
		if p.Name == "github.com/spf13/cobra" || p.Name == standard {
			licences = append(licences, p.LicenseDeclared)
		}
		if p.Version == "" || p.DownloadLocation == "" || len(p.ExternalRefs) != 1 {
			t.Errorf("%+v", p)
		}
	}
	if diff := cmp.Diff([]string{"Apache-2.0", "BSD-3-Clause"}, licences); diff != "" {
		t.Errorf("of cobra and Go: %s", diff)
	}
	for _, f := range d.Files {
		ids[f.SPDXID] = true
	}
	for _, r := range d.Relationships {
		if !ids[r.Element] || !ids[r.Related] {
			t.Errorf("%+v: not in the document", r)
		}
	}
	if d.CreationInfo.Created != "2026-01-02T03:04:05Z" || !strings.HasPrefix(d.Namespace, homepage+"/spdx/criu-netfreeze-1.1.0-2-") {
		t.Errorf("%+v", d)
	}
	if err := writeSBOM(&out, testPackage, []string{self}); err == nil {
		t.Error("a program without a path in the package is accepted")
	}
}

// TestCopyright has the licences of what is linked, as continuation lines.
func TestCopyright(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := writeCopyright(&out, []string{self}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Files: vendor/github.com/spf13/pflag/*\nCopyright:\n 2012 Alex Ogier.\n", "Files: vendor/std/*\n", " THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS", "\nLicense: Apache-2.0\n Licensed under",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	field := false
	for line := range strings.Lines(out.String()) {
		switch {
		case line == "\n":
			field = false
		case line[0] == ' ':
			if !field {
				t.Errorf("%q continues nothing", line)
			}
		case strings.Contains(line, ":"):
			field = true
		default:
			t.Errorf("%q is no field", line)
		}
	}
}
