// SPDX-License-Identifier: Apache-2.0

// Package doctor looks for what would make a dump or a restore fail, or leave
// criu-netfreeze without effect: on this machine ([Machine]), and in one container
// ([Container]). It only looks. What it finds is data, sorted so that what must be
// mended first comes first; a finding that can be mended safely carries the way to do
// that, which nobody but [Fix] goes.
//
// There is a file for each group of checks.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
)

// Verdict says how bad a finding is.
type Verdict string

// The verdicts, the worst first.
const (
	Fails   Verdict = "fails"   // a dump or a restore fails, or works without us
	Warning Verdict = "warning" // it works, but not as well, or not always
	Note    Verdict = "note"    // good to know
	OK      Verdict = "ok"
)

// rank returns 0 for the worst verdict, and more for better ones.
func (v Verdict) rank() int {
	return slices.Index([]Verdict{Fails, Warning, Note, OK}, v)
}

// Finding is one line of what was found.
type Finding struct {
	Group   string  `json:"group"` // the name of its group of checks
	Verdict Verdict `json:"verdict"`
	// Subject is what it is about: a file and line, a runtime, or a process and its
	// descriptor.
	Subject string `json:"subject,omitempty"`
	Text    string `json:"text"`
	// Remedy is what to do about it; "" if there is nothing to do.
	Remedy string `json:"remedy,omitempty"`
	// Fixable says that netfreeze doctor --fix can do that.
	Fixable bool `json:"fixable,omitempty"`

	fix *fix
}

// fix mends something. Two findings with the same key are mended at once.
type fix struct {
	key string
	do  func() (did string, err error)
}

// fixedBy returns f with the way to mend it.
func (f Finding) fixedBy(key string, do func() (string, error)) Finding {
	f.Fixable, f.fix = true, &fix{key, do}
	return f
}

func ok(subject, format string, args ...any) Finding {
	return Finding{Verdict: OK, Subject: subject, Text: fmt.Sprintf(format, args...)}
}

func note(subject, remedy, format string, args ...any) Finding {
	return Finding{Verdict: Note, Subject: subject, Remedy: remedy, Text: fmt.Sprintf(format, args...)}
}

func warn(subject, remedy, format string, args ...any) Finding {
	return Finding{Verdict: Warning, Subject: subject, Remedy: remedy, Text: fmt.Sprintf(format, args...)}
}

func fails(subject, remedy, format string, args ...any) Finding {
	return Finding{Verdict: Fails, Subject: subject, Remedy: remedy, Text: fmt.Sprintf(format, args...)}
}

// check is a group of checks of T.
type check[T any] struct {
	group string
	run   func(T) []Finding
}

// runAll runs the checks one after the other, and sorts what they find: by verdict, and
// in the order of the checks otherwise.
func runAll[T any](of T, checks []check[T]) []Finding {
	var all []Finding
	for _, c := range checks {
		for _, f := range c.run(of) {
			f.Group = c.group
			all = append(all, f)
		}
	}
	sortWorstFirst(all)
	return all
}

// sortWorstFirst leaves the order as it is otherwise.
func sortWorstFirst(all []Finding) {
	slices.SortStableFunc(all, func(a, b Finding) int { return cmp.Compare(a.Verdict.rank(), b.Verdict.rank()) })
}

// Merge returns the findings about several trees as one list, sorted, with what is said
// of all of them once.
func Merge(lists ...[]Finding) (all []Finding) {
	seen := map[[3]string]bool{}
	for _, list := range lists {
		for _, f := range list {
			key := [3]string{string(f.Verdict), f.Subject, f.Text}
			if !seen[key] {
				seen[key] = true
				all = append(all, f)
			}
		}
	}
	sortWorstFirst(all)
	return all
}

// Count returns how many findings have a verdict.
func Count(all []Finding, v Verdict) (n int) {
	for _, f := range all {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// Fixed is what Fix has done about one thing.
type Fixed struct {
	Did string `json:"did"`
	Err string `json:"error,omitempty"` // "" if it worked
}

// Fix mends what can be mended safely among the findings that fail or warn, each thing
// once, and returns what it did. Look again afterwards: one thing may have hidden
// another.
func Fix(all []Finding) []Fixed {
	done := []Fixed{}
	seen := map[string]bool{}
	for _, f := range all {
		if f.fix == nil || f.Verdict.rank() > Warning.rank() || seen[f.fix.key] {
			continue
		}
		seen[f.fix.key] = true
		did, err := f.fix.do()
		one := Fixed{Did: did}
		if err != nil {
			one = Fixed{Did: f.fix.key, Err: err.Error()}
		}
		done = append(done, one)
	}
	return done
}

// Machine checks this machine, or the root directory of another one, of which it can
// only read the files.
func Machine(h *Host) []Finding {
	checks := []check[*Host]{
		{"criu", checkCRIU},
		{"configuration", checkConfs},
		{"engines", checkEngines},
		{"netfreeze.toml", checkOwnConfig},
		{"kernel", checkKernel},
		{"cni", checkCNI},
		{"host", checkSystem},
		{"leftovers", checkLeftovers},
	}
	return runAll(h, checks)
}
