// SPDX-License-Identifier: Apache-2.0

package install

import (
	"slices"
	"strings"
)

// Conf is one of CRIU's configuration files as it is now.
type Conf struct {
	Path   string // within the root
	Exists bool
	// Statements are the options in it, in their order.
	Statements []Statement
	// Block is what our block says; nil if there is none.
	Block *Block
	// Edited says that somebody has changed the lines of the block since.
	Edited bool
	// Marker is what is wrong with the markers of the block; usually nil.
	Marker *MarkerError
}

// Statement is one option of a configuration file, read as CRIU reads it.
type Statement struct {
	Line        int // from 1
	Name, Value string
	InBlock     bool // whether it is one of ours
	// Problem says what is wrong with it beside our block; usually "".
	Problem string
	// Fatal says that CRIU exits when it reads the line.
	Fatal bool
}

// ConfPath returns the path of a runtime's configuration file, one of [Runtimes].
func ConfPath(runtime string) string { return conf(runtime) }

// Inspect reads a configuration file of CRIU at path within root; root is / if empty.
// It is no error if there is none.
func Inspect(root, path string) (Conf, error) {
	c := Conf{Path: path}
	change, err := open(Options{Root: root}.root(), path)
	if err != nil || change.Before == nil {
		return c, err
	}
	c.Exists = true
	c.read(change.Before)
	return c, nil
}

// read takes a file's content apart.
func (c *Conf) read(content []byte) {
	var ours Block
	b, err := findBlock(content)
	if m, ok := err.(*MarkerError); ok { //nolint:errorlint // findBlock returns it as it is
		c.Marker = m
	}
	if b.found {
		ours = readBlock(b.lines)
		c.Block = &ours
		c.Edited = strings.Join(b.lines, "") != strings.Join(ours.lines(), "\n")+"\n"
	}
	others := ours
	others.Scripts = nil // whether one is listed twice is told from all files together
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		name, value, ok := parseLine(line)
		if !ok {
			continue
		}
		s := Statement{Line: number, Name: name, Value: value}
		s.InBlock = b.found && number > b.line && number <= b.line+len(b.lines)
		switch {
		case strings.HasSuffix(line, "\r\n"):
			s.Problem, s.Fatal = carriageReturn, true
		case s.InBlock:
		case b.found && number > b.line:
			s.Problem = contradiction(name, value, others)
		default: // what follows in the block wins
			s.Problem = contradiction(name, value, Block{})
		}
		s.Fatal = s.Fatal || strings.HasPrefix(name, "-")
		c.Statements = append(c.Statements, s)
	}
}

// readBlock returns what the lines of a block say.
func readBlock(lines []string) (b Block) {
	for _, l := range lines {
		name, value, ok := parseLine(l)
		if !ok {
			continue
		}
		switch name {
		case "action-script":
			b.Scripts = append(b.Scripts, value)
		case "network-lock":
			b.NetworkLock = value
		case "manage-cgroups":
			b.ManageCgroups = value
		case "log-file":
			b.LogFile = value
		}
	}
	return b
}

// Split reports whether the block lists the four scripts one by one.
func (b *Block) Split() bool {
	return slices.ContainsFunc(b.Scripts, func(s string) bool { return !strings.HasSuffix(s, "/"+hookName) })
}

// CheckScript refuses a script at path within root that CRIU could not execute, or that
// others than root could change. In another root than / the owner is not checked.
func CheckScript(root, path string) error { return checkScript(Options{Root: root}.root(), path) }

// Unified reports whether the machine whose root directory this is has nothing but
// cgroup v2, where crun's restores need manage-cgroups ignore.
func Unified(root string) bool { return unified(Options{Root: root}.root()) }
