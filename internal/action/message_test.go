// SPDX-License-Identifier: Apache-2.0

package action_test

import (
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

func TestRequest(t *testing.T) {
	for _, tc := range []struct {
		request action.Request
		want    string
	}{
		{action.Request{}, "1\x00\x00\x00\x00"},
		{
			action.Request{Script: "netfreeze-hook", Action: "post-dump", ImageDir: "/proc/5/fd/6", InitPID: "77"},
			"1\x00netfreeze-hook\x00post-dump\x00/proc/5/fd/6\x0077",
		},
	} {
		if got := tc.request.String(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestVariable(t *testing.T) {
	for _, tc := range []struct {
		entry, want string
		ok          bool
	}{
		{"CRTOOLS_SCRIPT_ACTION=pre-dump", "pre-dump", true},
		{"CRTOOLS_SCRIPT_ACTION=a=b", "a=b", true},
		{"CRTOOLS_SCRIPT_ACTION=", "", true},
		{"CRTOOLS_SCRIPT_ACTION", "", false},
		{"CRTOOLS_SCRIPT_ACTIONS=pre-dump", "", false},
		{"CRTOOLS_SCRIPT_ACTIO=pre-dump", "", false},
		{"XRTOOLS_SCRIPT_ACTION=pre-dump", "", false},
		{"=", "", false},
		{"", "", false},
	} {
		if got, ok := action.Variable(tc.entry, action.EnvAction); got != tc.want || ok != tc.ok {
			t.Errorf("%q: got %q, %v; want %q, %v", tc.entry, got, ok, tc.want, tc.ok)
		}
	}
}

func TestBase(t *testing.T) {
	for path, want := range map[string]string{
		"":                       "",
		"pre-dump":               "pre-dump",
		"./pre-dump":             "pre-dump",
		"/usr/libexec/post-dump": "post-dump",
		"/usr/libexec/":          "",
	} {
		if got := action.Base(path); got != want {
			t.Errorf("Base(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestExitCode(t *testing.T) {
	for answer, want := range map[string]int{"0": 0, "1": 1, "": 1, "2": 1, "00": 1, "0\n": 1, "x": 1} {
		if got := action.ExitCode([]byte(answer)); got != want {
			t.Errorf("ExitCode(%q) = %d, want %d", answer, got, want)
		}
	}
}

func TestID(t *testing.T) {
	stat := "4194304 (a) b) (c) S" + strings.Repeat(" 7", 18) + " 18446744073709551615 8"
	if id, ok := action.ID(4194304, []byte(stat)); id != "4194304@18446744073709551615" || !ok {
		t.Errorf("got %q, %v", id, ok)
	}
	for _, stat := range []string{"", "7 (a) S 1 2 3", "7 (a) S" + strings.Repeat(" 7", 18) + " x"} {
		if id, ok := action.ID(7, []byte(stat)); ok {
			t.Errorf("%q gives the id %q", stat, id)
		}
	}
	if got, want := action.Socket("7@8"), "/run/criu-netfreeze/7@8.sock"; got != want {
		t.Errorf("the socket is %s, want %s", got, want)
	}
}

// TestLongestSocket makes sure that every socket's path fits into a sockaddr_un, which
// has 108 bytes for it with the NUL that ends it (unix(7)).
func TestLongestSocket(t *testing.T) {
	id := strconv.Itoa(math.MaxInt32) + "@" + strconv.FormatUint(math.MaxUint64, 10)
	if path := action.Socket(id); len(path) >= 108 {
		t.Errorf("%s has %d bytes", path, len(path))
	}
}

func TestLateAnswer(t *testing.T) {
	if want := strconv.Itoa(action.Patience) + " s"; !strings.Contains(action.LateAnswer, want) {
		t.Errorf("%q does not contain %q", action.LateAnswer, want)
	}
}

func TestBuffer(t *testing.T) {
	b := action.NewBuffer(make([]byte, 6))
	b.Text("ab")
	b.Number(7)
	b.Byte('c')
	if got := b.String(); got != "ab7c" || b.Len() != 4 || b.Full() {
		t.Errorf("got %q, %d bytes, full %v", got, b.Len(), b.Full())
	}
	b.Number(10)
	if got := b.String(); got != "ab7c10" || b.Full() {
		t.Errorf("got %q, full %v", got, b.Full())
	}
	b.Byte('d')
	if got := b.String(); got != "ab7c10" || b.Len() != 6 || !b.Full() {
		t.Errorf("got %q, %d bytes, full %v", got, b.Len(), b.Full())
	}
	for _, n := range []int{0, 1, 9, 10, 99, 100, 32768, math.MaxInt32, math.MaxInt} {
		b := action.NewBuffer(make([]byte, 20))
		b.Number(n)
		if got := b.String(); got != strconv.Itoa(n) {
			t.Errorf("got %s, want %d", got, n)
		}
	}
	b = action.NewBuffer(nil)
	if b.Text(""); b.Full() {
		t.Error("nothing does not fit into an empty buffer")
	}
	if b.Byte(0); !b.Full() || b.Len() != 0 {
		t.Error("an empty buffer has room")
	}
}

// FuzzStartTime compares with a way to read /proc/PID/stat that allocates.
func FuzzStartTime(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	f.Add("7 (a) b) (c) S 1 2 3")
	f.Add("")
	f.Fuzz(func(t *testing.T, stat string) {
		from, to := action.StartTime([]byte(stat))
		if from < 0 || to < from || to > len(stat) {
			t.Fatalf("%d to %d of %d", from, to, len(stat))
		}
		fields := strings.Split(stat[strings.LastIndexByte(stat, ')')+1:], " ")
		if len(fields) > 20 && stat[from:to] != leadingDigits(fields[20]) {
			t.Errorf("got %q, want %q", stat[from:to], fields[20])
		}
	})
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}
