// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/doctor"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// newDoctorCmd makes netfreeze doctor.
func newDoctorCmd() *cobra.Command {
	var (
		h      doctor.Host
		output string
		mend   bool
	)
	cmd := &cobra.Command{
		Use:   "doctor [TARGET]",
		Short: "Find out what is wrong, and what to do about it",
		Long: `Find out what would make dumps and restores fail on this machine, or work without
criu-netfreeze: CRIU, its configuration files, netfreeze.toml, the kernel, CNI, and
leftovers. With TARGET, find out whether a dump of that container would work. The
worst comes first, each with its remedy:

  fails    a dump or a restore fails, or criu-netfreeze has no effect
  warning  it works, but not as well, or not always
  note     good to know
  ok       nothing is wrong

The exit code is 1 if anything fails, and 0 otherwise, even with warnings.

It changes nothing but what netfreeze status does, too: records of what is over are
cleared away. What the kernel can is tried in a network namespace that is made for
that and thrown away. With --fix it mends what can be mended safely, and says what it
did: lines in CRIU's configuration files that are missing or were changed, the mode of
the state directory, and leftovers of ours that nobody needs. It never touches a
container's network namespace, and starts and stops no services.

` + targetHelp,
		Example: `  netfreeze doctor
  netfreeze doctor --fix
  netfreeze doctor 3f2a91
  netfreeze doctor --root /mnt/image -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if h.Root == "" || h.Root == "/" {
				if err := needRoot(); err != nil {
					return err
				}
				h.Keeper = keeper()
			} else if len(args) > 0 {
				return code.New(code.Usage, "a TARGET runs on this machine: leave --root away")
			}
			if len(args) > 0 && mend {
				return code.New(code.Usage, "--fix mends this machine, not a container: leave TARGET away")
			}
			view, err := examine(&h, args, mend)
			if err != nil {
				return err
			}
			return view.report(cmd.OutOrStdout(), output)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&mend, "fix", false, "mend what can be mended safely, say what was done, and look again")
	f.StringVar(&h.Root, "root", "", "the directory in which all paths are looked up; another one than / has its files checked only")
	addOutputFlag(cmd, &output)
	return cmd
}

// doctorView is what was found, and done, as JSON.
type doctorView struct {
	OK       bool             `json:"ok"` // whether nothing fails
	Fixed    []doctor.Fixed   `json:"fixed,omitempty"`
	Findings []doctor.Finding `json:"findings"`
}

// examine looks at the machine, or at the trees that a target names.
func examine(h *doctor.Host, args []string, mend bool) (v doctorView, err error) {
	if len(args) > 0 {
		v.Findings, err = examineTarget(h, args[0])
	} else {
		v.Findings = doctor.Machine(h)
	}
	if err == nil && mend {
		if v.Fixed = doctor.Fix(v.Findings); len(v.Fixed) > 0 {
			v.Findings = doctor.Machine(h)
		}
	}
	v.OK = doctor.Count(v.Findings, doctor.Fails) == 0
	return v, err
}

// examineTarget looks at each tree that a target names.
func examineTarget(h *doctor.Host, target string) ([]doctor.Finding, error) {
	roots, err := treesOf(target)
	if err != nil {
		return nil, err
	}
	var lists [][]doctor.Finding
	for _, root := range roots {
		s, err := doctor.Open(h, root)
		if errors.Is(err, proc.ErrGone) && len(roots) > 1 {
			continue
		}
		if err != nil {
			return nil, code.Wrap(code.TaskGone, err)
		}
		lists = append(lists, doctor.Container(s))
		s.Close()
	}
	if len(lists) == 0 {
		return nil, code.New(code.TaskGone, "every process of "+target+" has ended meanwhile")
	}
	return doctor.Merge(lists...), nil
}

// treesOf returns the roots of the process trees that a target names.
func treesOf(target string) ([]proc.Ref, error) {
	if isPID(target) {
		pid, err := strconv.Atoi(target)
		if err != nil {
			return nil, code.Wrap(code.Target, err)
		}
		p, err := proc.Open(pid)
		if err != nil {
			return nil, code.Wrap(code.TaskGone, err)
		}
		defer p.Close()
		return []proc.Ref{p.Ref}, nil
	}
	ns, err := directNetNS(target)
	if err == nil {
		defer ns.Close()
		roots, err := doctor.Roots(ns)
		if err == nil && len(roots) == 0 {
			err = code.New(code.Target, fmt.Sprintf("no process lives in %s, so that there is nothing to dump", ns))
		}
		return roots, err
	}
	if !errors.Is(err, os.ErrNotExist) || strings.ContainsRune(target, '/') {
		return nil, code.Wrap(code.Target, err)
	}
	root, err := findContainer(target)
	if err != nil {
		return nil, err
	}
	return []proc.Ref{root}, nil
}

// report prints what was found. The error says that something fails, for the exit code.
func (v doctorView) report(w io.Writer, output string) error {
	if output == outputJSON {
		if err := encodeJSON(w, v); err != nil {
			return err
		}
	} else if _, err := io.WriteString(w, v.text(isTerminal(w) && os.Getenv("NO_COLOR") == "")); err != nil {
		return err
	}
	if n := doctor.Count(v.Findings, doctor.Fails); n > 0 {
		return code.New(code.CheckFailed, fmt.Sprintf("%d of %d checks fail: the first lines above say what to do", n, len(v.Findings)))
	}
	return nil
}

// colours are those of a terminal (ECMA-48, SGR).
var colours = map[doctor.Verdict]string{doctor.Fails: "31;1", doctor.Warning: "33", doctor.Note: "36", doctor.OK: "32"}

// text is what people read: a line for each finding, and one for its remedy.
func (v doctorView) text(colour bool) string {
	var b strings.Builder
	for _, f := range v.Fixed {
		if f.Err != "" {
			fmt.Fprintf(&b, "not fixed: %s: %s\n", printable.Text(f.Did), printable.Text(f.Err))
			continue
		}
		fmt.Fprintf(&b, "fixed: %s\n", printable.Text(f.Did))
	}
	for _, f := range v.Findings {
		verdict := fmt.Sprintf("%-7s", f.Verdict)
		if colour {
			verdict = "\x1b[" + colours[f.Verdict] + "m" + verdict + "\x1b[0m"
		}
		fmt.Fprintf(&b, "%s  %s: %s\n", verdict, printable.Text(f.Subject), oneLine(f.Text))
		if f.Remedy == "" {
			continue
		}
		fmt.Fprintf(&b, "         remedy: %s", printable.Text(f.Remedy))
		if f.Fixable && f.Verdict != doctor.Note {
			b.WriteString(" (--fix does it)")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// oneLine makes one line of an error that has several.
func oneLine(s string) string {
	return printable.Text(strings.ReplaceAll(strings.TrimSpace(s), "\n", "; "))
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, isFile := w.(*os.File)
	if !isFile {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
