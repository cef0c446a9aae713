// SPDX-License-Identifier: Apache-2.0

// Package install adds the suite to CRIU's configuration files and takes it out
// again. What it adds stands between two marker lines, and taking that out restores
// the former file byte for byte. The editing is done by pure functions on bytes
// ([Add], [Remove], [SetPolicy], [UnsetPolicy]). A [Plan] applies them to files:
// everything is checked before the first write, and each file is replaced in one
// step.
package install

import (
	"bytes"
	_ "embed" // for DefaultConfig
	"fmt"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// DefaultConfig is the commented configuration file that is installed as
// netfreeze.toml. It only shows the defaults.
//
//go:embed netfreeze.toml
var DefaultConfig []byte

// The markers are comments to CRIU and in TOML. Notes about where the file came
// from may follow the first one.
const (
	beginMarker = "# BEGIN netfreeze"
	endMarker   = "# END netfreeze"
	explanation = ": written by netfreeze install, taken out by netfreeze uninstall"
	noteFile    = "; the file too"
	noteDir     = "; the directory too"
)

// Origin says what did not exist before the block was added, so that it can be
// removed together with the block. The zero Origin says that the file existed.
type Origin struct {
	File bool // whether the file was made for the block
	Dir  bool // whether its directory was, too
}

// Block is what is added to one of CRIU's configuration files.
type Block struct {
	// Scripts are the absolute paths of the action-scripts, in the order listed.
	Scripts []string
	// NetworkLock is CRIU's own lock, "nftables" or "skip"; empty adds no line.
	NetworkLock string
	// ManageCgroups is CRIU's mode, such as "ignore"; empty adds no line.
	ManageCgroups string
	// LogFile is CRIU's log; empty adds no line.
	LogFile string
	// Origin is combined with the one of a block that is there already.
	Origin Origin
}

// lines returns the statements of the block.
func (b Block) lines() []string {
	var lines []string
	for _, s := range b.Scripts {
		lines = append(lines, "action-script "+s)
	}
	lines = append(lines, "tcp-established")
	if b.NetworkLock != "" {
		lines = append(lines, "network-lock "+b.NetworkLock)
	}
	if b.ManageCgroups != "" {
		// Its argument is optional: getopt_long(3) takes it only after a =.
		lines = append(lines, "manage-cgroups="+b.ManageCgroups)
	}
	if b.LogFile != "" {
		lines = append(lines, "log-file "+b.LogFile)
	}
	return lines
}

// beginLine returns the first line of a block, without its newline.
func beginLine(o Origin) string {
	s := beginMarker + explanation
	if o.File {
		s += noteFile
	}
	if o.Dir {
		s += noteDir
	}
	return s
}

// Add returns the content of a CRIU configuration file with the block at its top. A
// block that is there already is replaced. It is at the top because CRIU runs
// scripts in the reverse of the order in which they are listed, and ours are to run
// last. The warnings name lines of the result that contradict the block or that
// CRIU cannot read. The error is a [MarkerError] if the markers in the file do not
// make a pair, or says which of the block's values CRIU could not read back.
func Add(content []byte, b Block) ([]byte, []Warning, error) {
	if err := b.check(); err != nil {
		return nil, nil, err
	}
	old, err := findBlock(content)
	if err != nil {
		return nil, nil, err
	}
	origin := b.Origin.or(old.origin)
	var out bytes.Buffer
	out.WriteString(beginLine(origin) + "\n")
	for _, l := range b.lines() {
		out.WriteString(l + "\n")
	}
	out.WriteString(endMarker + "\n")
	first := bytes.Count(out.Bytes(), []byte("\n"))
	rest := old.cut(content)
	out.Write(rest)
	return out.Bytes(), warnings(rest, first, b), nil
}

// Remove returns the content without the block, or unchanged if it has none. The
// error is a [MarkerError].
func Remove(content []byte) ([]byte, error) {
	old, err := findBlock(content)
	if err != nil {
		return nil, err
	}
	return old.cut(content), nil
}

func (o Origin) or(p Origin) Origin {
	return Origin{File: o.File || p.File, Dir: o.Dir || p.Dir}
}

// MarkerError says that a marker line lacks its counterpart: somebody has edited
// the block, and where it begins or ends can only be guessed.
type MarkerError struct {
	Line int // from 1
	Text string
}

func (e *MarkerError) Error() string {
	return code.Text(e.Code(), fmt.Sprintf("line %d: %s", e.Line, e.Text))
}

// Code implements [code.Coder].
func (*MarkerError) Code() code.Code { return code.InstallConflict }

// block is a block found in a file: the bytes from start up to end.
type block struct {
	found      bool
	line       int // of the begin marker, from 1
	start, end int
	lines      []string // between the markers, with their newlines
	endLine    string   // the end marker, with its newline if it has one
	origin     Origin
}

// cut returns a copy of the content without the block.
func (b block) cut(content []byte) []byte {
	out := make([]byte, 0, len(content))
	out = append(out, content[:b.start]...)
	return append(out, content[b.end:]...)
}

// findBlock finds the one block of a file, if it has one.
func findBlock(content []byte) (block, error) {
	var b block
	at, number := 0, 0
	for line := range strings.Lines(string(content)) {
		number++
		start := at
		at += len(line)
		switch {
		case isMarker(line, beginMarker):
			if b.line > 0 {
				return block{}, &MarkerError{number, fmt.Sprintf("%q again, after line %d: take out the block by hand", beginMarker, b.line)}
			}
			b.line = number
			b.start, b.end = start, at
			b.origin = Origin{File: strings.Contains(line, noteFile), Dir: strings.Contains(line, noteDir)}
		case isMarker(line, endMarker):
			if b.line == 0 || b.found {
				return block{}, &MarkerError{number, fmt.Sprintf("%q without a %q before it: take out the block by hand", endMarker, beginMarker)}
			}
			b.found, b.end, b.endLine = true, at, line
		case b.line > 0 && !b.found:
			b.lines = append(b.lines, line)
		}
	}
	if b.line > 0 && !b.found {
		return block{}, &MarkerError{b.line, fmt.Sprintf("%q without a %q after it: take out the block by hand", beginMarker, endMarker)}
	}
	return b, nil
}

// isMarker reports whether the line is this marker, even indented or with a CR.
func isMarker(line, marker string) bool {
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), marker)
	return ok && (rest == "" || rest[0] == ' ' || rest[0] == ':')
}
