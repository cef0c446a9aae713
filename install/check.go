// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// NetworkLocks returns the values of CRIU's network-lock option that make sense
// beside our own freeze.
func NetworkLocks() []string { return []string{"nftables", "skip"} }

// cgroupModes returns the modes that CRIU 4.2 knows (criu(8), --manage-cgroups).
func cgroupModes() []string {
	return []string{"none", "props", "soft", "full", "strict", "ignore"}
}

// check refuses values that CRIU would read differently.
func (b Block) check() error {
	var errs []error
	if len(b.Scripts) == 0 {
		errs = append(errs, code.New(code.Usage, "no action-script given"))
	}
	for _, s := range b.Scripts {
		errs = append(errs, checkPath("action-script", s))
	}
	if b.LogFile != "" {
		errs = append(errs, checkPath("log-file", b.LogFile))
	}
	if b.NetworkLock != "" && !slices.Contains(NetworkLocks(), b.NetworkLock) {
		errs = append(errs, code.New(code.Usage, fmt.Sprintf("network-lock %q: not one of %s", b.NetworkLock, strings.Join(NetworkLocks(), ", "))))
	}
	if b.ManageCgroups != "" && !slices.Contains(cgroupModes(), b.ManageCgroups) {
		errs = append(errs, code.New(code.Usage, fmt.Sprintf("manage-cgroups %q: not one of %s", b.ManageCgroups, strings.Join(cgroupModes(), ", "))))
	}
	return errors.Join(errs...)
}

// checkPath refuses a path that CRIU's parser would cut or unquote: a value ends at
// a space or a #, and a backslash can only escape a quote.
func checkPath(what, path string) error {
	if !filepath.IsAbs(path) {
		return code.New(code.InstallPath, fmt.Sprintf("%s %q: must be an absolute path", what, path))
	}
	for _, c := range []byte(path) {
		if c <= ' ' || c == 0x7f || strings.IndexByte("#\"'\\", c) >= 0 {
			return code.New(code.InstallPath, fmt.Sprintf("%s %q: CRIU's configuration files cannot hold a path with %q in it; use another one", what, path, c))
		}
	}
	return nil
}

// Warning is about a line of a configuration file that contradicts the block.
type Warning struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1; 0 means the file as a whole
	Text string `json:"text"`
}

func (w Warning) String() string {
	if w.Line == 0 {
		return fmt.Sprintf("%s: %s", w.File, w.Text)
	}
	return fmt.Sprintf("%s:%d: %s", w.File, w.Line, w.Text)
}

// warnings checks the rest of the file, which follows the first lines that the
// block takes. If an option has a single value, CRIU uses the last one given, so
// these lines win.
func warnings(rest []byte, first int, b Block) []Warning {
	var ws []Warning
	number, found := first, false
	for line := range strings.Lines(string(rest)) {
		number++
		name, value, ok := parseLine(line)
		if !ok {
			continue
		}
		if strings.HasSuffix(line, "\r\n") {
			if !found {
				ws = append(ws, Warning{Line: number, Text: carriageReturn})
			}
			found = true
			continue
		}
		if text := contradiction(name, value, b); text != "" {
			ws = append(ws, Warning{Line: number, Text: text})
		}
	}
	return ws
}

// carriageReturn is the warning about a line with a CR at its end.
const carriageReturn = "the line ends in CR LF: CRIU takes the CR for a part of it and exits with an error"

// contradiction returns what is wrong with an option beside the block, or "".
func contradiction(name, value string, b Block) string {
	switch {
	case strings.HasPrefix(name, "-"):
		return fmt.Sprintf("%s: CRIU adds the dashes itself and exits with an error: write %s", name, strings.TrimLeft(name, "-"))
	case name == "network-lock" && b.NetworkLock != "" && value != b.NetworkLock:
		return fmt.Sprintf("network-lock %s: stands after our %s and wins", value, b.NetworkLock)
	case name == "network-lock" && value == "iptables":
		return "network-lock iptables: CRIU starts iptables while the tasks are stopped, which makes each dump slower: " +
			"our freeze needs no other lock; take this line out and install without --network-lock"
	case name == "skip-in-flight":
		return "skip-in-flight: connections that are not accepted yet are lost; we let the application accept them first, so that it is not needed"
	case name == "tcp-close":
		return "tcp-close: CRIU closes the established connections on restore, so that nothing is left to go on"
	case name == "no-tcp-established":
		return "no-tcp-established: stands after our tcp-established and wins: a tree with established connections cannot be dumped"
	case name == "leave-stopped":
		return "leave-stopped: CRIU leaves the tasks stopped whatever the policy says"
	case name == "log-file" && b.LogFile != "" && value != b.LogFile:
		return fmt.Sprintf("log-file %s: stands after our %s and wins", value, b.LogFile)
	case name == "manage-cgroups" && b.ManageCgroups != "" && value != b.ManageCgroups:
		return fmt.Sprintf("manage-cgroups %s: stands after our %s and wins", value, b.ManageCgroups)
	case name == "action-script" && slices.Contains(b.Scripts, value):
		return fmt.Sprintf("action-script %s: listed a second time, CRIU runs it twice for each action", value)
	}
	return ""
}

// blanks are the characters that isspace(3) matches, except the newline.
const blanks = " \t\v\f\r"

// parseLine reads one line as CRIU does (parse_statement in its config.c): an
// option, or an option and a value, which may be quoted; # begins a comment. ok is
// false if there is no option.
func parseLine(line string) (name, value string, ok bool) {
	line = strings.TrimLeft(strings.TrimRight(line, "\n"), blanks)
	if line == "" || line[0] == '#' {
		return "", "", false
	}
	// A space ends the name; a tab does only if there is no space.
	separator := " "
	if !strings.Contains(line, separator) {
		separator = "\t"
	}
	name, value, _ = strings.Cut(line, separator)
	value = strings.TrimLeft(value, blanks)
	if quoted, isQuoted := strings.CutPrefix(value, `"`); isQuoted {
		value = unquote(quoted)
	} else {
		value, _, _ = strings.Cut(value, "#")
		value = strings.TrimRight(value, blanks)
	}
	// getopt_long(3) also accepts the value after a =.
	if n, v, assigned := strings.Cut(name, "="); assigned {
		name, value = n, v
	}
	return strings.TrimRight(name, "\r"), value, true
}

// unquote returns what stands before the closing quote, with \" replaced by a quote.
func unquote(s string) string {
	for i := range len(s) {
		if s[i] == '"' && (i == 0 || s[i-1] != '\\') {
			return strings.ReplaceAll(s[:i], `\"`, `"`)
		}
	}
	return s
}
