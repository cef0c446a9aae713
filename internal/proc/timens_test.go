// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// In a time namespace, by timeNSVar, this test binary is told a stored Ref of its parent,
// reads that process itself, and prints what it would store, and how long ago the host
// was booted.
const timeNSVar = "PROC_TEST_TIMENS"

func TestTimeNamespaceChild(t *testing.T) {
	stored := os.Getenv(timeNSVar)
	if stored == "" {
		t.Skip("a part of TestTimeNamespace")
	}
	var told Ref
	if err := json.Unmarshal([]byte(stored), &told); err != nil {
		t.Fatal(err)
	}
	p, err := Open(told.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	text, err := json.Marshal(p.Ref)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := SinceBoot()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("told %v %d %s\n", told.Alive(), boot, text)
}

// TestTimeNamespace stores a process in one time namespace and finds it again in
// another: a settler may run in one, since CRIU does, and netfreeze thaw outside.
func TestTimeNamespace(t *testing.T) {
	t.Parallel()
	own, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	stored, err := json.Marshal(own.Ref)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--time", "--boottime", "1000000", "--fork", program, "-test.run=^TestTimeNamespaceChild$")
	cmd.Env = append(os.Environ(), timeNSVar+"="+string(stored))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var alive bool
	var boot time.Duration
	var text string
	line, _, _ := strings.Cut(string(out), "\n")
	if n, err := fmt.Sscanf(line, "told %t %d %s", &alive, &boot, &text); n != 3 {
		t.Fatalf("%v: %s", err, out)
	}
	if !alive {
		t.Errorf("what was stored outside is not found inside: %s", stored)
	}
	var back Ref
	if err := json.Unmarshal([]byte(text), &back); err != nil {
		t.Fatal(err)
	}
	if back != own.Ref {
		t.Errorf("stored inside as %s, and outside it is %v", text, own.Ref)
	}
	now, err := SinceBoot()
	if err != nil || now < boot || now > boot+time.Hour {
		t.Errorf("booted %v ago inside, %v outside (%v)", boot, now, err)
	}
}

func TestShift(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		start uint64
		by    time.Duration
	}{
		{123456, 0},
		{1 << 63, 0},
		{123456, time.Hour},
		{123456, -time.Minute},
	} {
		shifted := shift(tc.start, tc.by)
		if got := shift(shifted, -tc.by); got != tc.start {
			t.Errorf("%d by %v is %d, and back %d", tc.start, tc.by, shifted, got)
		}
	}
	if got := shift(100, time.Second); got != 200 {
		t.Errorf("a second later: %d", got)
	}
}

func TestParseBootOffset(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"monotonic          3         5\nboottime       86400         7\n": 24*time.Hour + 7,
		"monotonic  0  0\nboottime  -2  500000000\n":                       -1500 * time.Millisecond,
	} {
		if got, err := parseBootOffset(text); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "monotonic 1 2\n", "boottime x 0\n", "boottime 1\n"} {
		if got, err := parseBootOffset(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
