// SPDX-License-Identifier: Apache-2.0

package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// linked is a Go module, or Go's own library, that programs contain.
type linked struct {
	Path, Version string
	Sum           string // as go.sum has it
	Licence       licence
	Notice        string // the module's NOTICE file, which its licence asks to pass on
}

// standard is the path under which Go's own library is listed.
const standard = "std"

// linkedInto returns what a program is linked with, sorted, as its build info says. The
// licences are not looked up.
func linkedInto(program string) ([]linked, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	all := []linked{{Path: standard, Version: strings.TrimPrefix(info.GoVersion, "go")}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		all = append(all, linked{Path: m.Path, Version: m.Version, Sum: m.Sum})
	}
	slices.SortFunc(all, compare)
	return all, nil
}

func compare(a, b linked) int { return strings.Compare(a.Path, b.Path) }

// union returns what any of the programs is linked with, sorted, with the licences.
func union(programs []string) ([]linked, error) {
	var all []linked
	for _, p := range programs {
		of, err := linkedInto(p)
		if err != nil {
			return nil, err
		}
		all = append(all, of...)
	}
	slices.SortFunc(all, compare)
	all = slices.Compact(all) // one module has one version in all of them
	dirs, err := directories(all)
	if err != nil {
		return nil, err
	}
	for i := range all {
		m := &all[i]
		if m.Licence, err = readLicence(dirs[m.Path]); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		notice, err := os.ReadFile(filepath.Join(dirs[m.Path], "NOTICE"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		m.Notice = string(notice)
	}
	return all, nil
}

// directories returns where the sources of the modules are.
func directories(all []linked) (map[string]string, error) {
	args := []string{"list", "-m", "-f", "{{.Path}}\t{{.Dir}}"}
	for _, m := range all {
		if m.Path != standard {
			args = append(args, m.Path)
		}
	}
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	dirs := map[string]string{standard: runtime.GOROOT()} //nolint:staticcheck // gen runs by "go run", where it is right
	for line := range strings.Lines(string(out)) {
		path, dir, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		dirs[path] = dir
	}
	return dirs, nil
}

// licence is what a module's licence file says.
type licence struct {
	SPDX       string // the identifier in SPDX's list
	Debian     string // the name in Debian's machine-readable copyright files
	Text       string // the whole file
	Copyrights string // its copyright lines, one a line
}

// licenceFiles are the names that the file has.
var licenceFiles = []string{"LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"}

// readLicence reads the licence in a module's directory. One that it does not know is an
// error: somebody has to see whether it may be linked, and what it asks for.
func readLicence(dir string) (licence, error) {
	for _, name := range licenceFiles {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return licence{}, err
		}
		return classify(string(text))
	}
	return licence{}, fmt.Errorf("%s has no licence file", dir)
}

// classify tells a licence by the sentences that are always in its text.
func classify(text string) (licence, error) {
	l := licence{Text: text}
	plain := strings.Join(strings.Fields(text), " ")
	has := func(s string) bool { return strings.Contains(plain, s) }
	switch {
	case has("Apache License Version 2.0, January 2004"):
		l.SPDX, l.Debian = "Apache-2.0", "Apache-2.0"
	case has("Permission is hereby granted, free of charge, to any person obtaining a copy"):
		l.SPDX, l.Debian = "MIT", "Expat"
	case has("Redistribution and use in source and binary forms") && (has("Neither the name") || has("names of its contributors")):
		l.SPDX, l.Debian = "BSD-3-Clause", "BSD-3-clause"
	case has("Redistribution and use in source and binary forms"):
		l.SPDX, l.Debian = "BSD-2-Clause", "BSD-2-clause"
	default:
		return licence{}, errors.New("its licence is not one of Apache-2.0, MIT, BSD: see whether it may be linked, and add it")
	}
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if c, ok := strings.CutPrefix(line, "Copyright "); ok && l.SPDX != "Apache-2.0" {
			lines = append(lines, strings.TrimSuffix(strings.TrimPrefix(c, "(c) "), " All rights reserved."))
		}
	}
	l.Copyrights = strings.Join(lines, "\n")
	return l, nil
}
