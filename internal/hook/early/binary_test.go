// SPDX-License-Identifier: Apache-2.0

//go:build linux

package early_test

import (
	"debug/elf"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEntry makes sure that -E has an effect.
func TestEntry(t *testing.T) {
	eachArch(t, func(t *testing.T, arch string) {
		f, err := elf.Open(buildHook(t, arch, true))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		symbols, err := f.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range symbols {
			if s.Name == entry || s.Name == entry+".abi0" {
				if s.Value != f.Entry {
					t.Errorf("%s is at %#x, but the program begins at %#x", s.Name, s.Value, f.Entry)
				}
				return
			}
		}
		t.Errorf("the program has no %s", entry)
	})
}

// TestCalls makes sure that what runs before the runtime calls nothing that needs the
// runtime: it follows every call from the entry, and allows functions of ours, whose
// calls it follows in turn, and a few others that are known to need nothing.
func TestCalls(t *testing.T) {
	eachArch(t, func(t *testing.T, arch string) {
		hook := buildHook(t, arch, true)
		harmless := regexp.MustCompile(`^(?:syscall\.RawSyscall6|internal/runtime/syscall(?:/linux)?\.Syscall6|` +
			`runtime\.memequal|memeqbody|runtime\.cmpstring|cmpbody|` + // assembly
			`runtime\.panic.*|runtime\.goPanic.*|` + // only if we have a bug
			`_rt0_` + arch + `_linux)(?:\.abi0)?$`) // what comes next
		calls := disassemble(t, hook)
		seen, system := map[string]bool{}, false
		for todo := []string{entry + ".abi0"}; len(todo) > 0; todo = todo[1:] {
			name := todo[0]
			if seen[name] {
				continue
			}
			seen[name] = true
			if _, ok := calls[name]; !ok {
				t.Errorf("%s was not found", name)
			}
			for _, to := range calls[name] {
				switch {
				case strings.HasPrefix(to, module+"/internal/"):
					todo = append(todo, to)
				case !harmless.MatchString(to):
					t.Errorf("%s calls %s", name, to)
				case strings.HasPrefix(to, "syscall.RawSyscall6"), strings.Contains(to, "runtime/syscall"):
					system = true
				}
			}
		}
		// That nothing bad was found is worth something if what is there was found.
		for _, name := range []string{"hook/early.early", "hook/early.identify", "hook/early.receive", "action.(*Buffer).Request"} {
			if !seen[module+"/internal/"+name] {
				t.Errorf("no call of %s was found", name)
			}
		}
		if !system {
			t.Error("no system call was found")
		}
	})
}

// call matches a call and a jump to another function in what objdump prints, which is
// the same for both architectures.
var call = regexp.MustCompile(`\s(?:CALL|JMP) ([^\s(]\S*)\(SB\)`)

// indirect matches a call of which the code does not say where it goes to. (A jump of
// that kind stays within its function: it is how a switch is compiled.)
var indirect = regexp.MustCompile(`\sCALL .*`)

// disassemble returns what each function of ours calls or jumps to.
func disassemble(t *testing.T, program string) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "tool", "objdump", "-s", "^"+regexp.QuoteMeta(module)+"/", program).Output()
	if err != nil {
		t.Fatalf("disassemble: %v", err)
	}
	calls, name := map[string][]string{}, ""
	for line := range strings.Lines(string(out)) {
		if after, ok := strings.CutPrefix(line, "TEXT "); ok {
			name, _, _ = strings.Cut(after, "(SB)")
			calls[name] = nil
		} else if m := call.FindStringSubmatch(line); m != nil {
			calls[name] = append(calls[name], m[1])
		} else if m := indirect.FindString(line); m != "" {
			calls[name] = append(calls[name], strings.TrimSpace(m))
		}
	}
	return calls
}

// TestNoInit makes sure that nothing that runs before the runtime needs a package's
// initialisation, which would come too late.
func TestNoInit(t *testing.T) {
	eachArch(t, func(t *testing.T, arch string) {
		out, err := exec.Command("go", "tool", "nm", buildHook(t, arch, true)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, pkg := range []string{"action", "hook/early"} {
			if !strings.Contains(string(out), module+"/internal/"+pkg+".") {
				t.Errorf("package %s has no symbols", pkg)
			}
			for _, symbol := range []string{".init", "..inittask", "..stmp_"} {
				if strings.Contains(string(out), module+"/internal/"+pkg+symbol) {
					t.Errorf("package %s has to be initialised: %s", pkg, symbol)
				}
			}
		}
	})
}

// TestNoFmt makes sure that the hook stays small.
func TestNoFmt(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"/cmd/netfreeze-hook").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	ours := slices.DeleteFunc(slices.Clone(deps), func(pkg string) bool { return !strings.HasPrefix(pkg, module+"/") })
	want := []string{module + "/internal/action", module + "/internal/code", module + "/internal/hook", module + "/internal/hook/early", module + "/cmd/netfreeze-hook"}
	slices.Sort(ours)
	slices.Sort(want)
	if !slices.Equal(ours, want) {
		t.Errorf("netfreeze-hook links %q of ours, want %q", ours, want)
	}
	for _, pkg := range deps {
		if pkg == "fmt" || strings.HasPrefix(pkg, "golang.org/") {
			t.Errorf("netfreeze-hook links %s", pkg)
		}
	}
}
