// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
)

const full = `# a comment
backend = "iptables-nft"
policy = "run"   # another
ttl = "2m30s"
drain = "0s"
quiet = "off"
quiet-time = "50ms"
restore-failure = "keep"
resume = "none"
nudge-packets = 8
announce-count = 5
announce-interval = "1s"
hold-then-kill = "30s"
hold-sigterm = "wait"
restart = "keep"
answer = "off"
annotations = true

[log]
level = "debug"
file = "/var/log/netfreeze.log"

[[container]]
id = "3f2a"
policy = "kill"
ttl = "1h"

[[container]]
pod = "kube-system/*"
name = 'db-[0-9]'
backend = "nftables"
drain = "5s"
quiet = "off"
quiet-time = "1s"
answer = "always"
`

func ptr[T any](v T) *T { return &v }

func TestParse(t *testing.T) {
	want := &Config{
		Backend:        "iptables-nft",
		Policy:         Run,
		TTL:            150 * time.Second,
		Drain:          0,
		Quieting:       Quieting{Quiet: NoQuiet, QuietTime: 50 * time.Millisecond},
		RestoreFailure: Keep,
		Resuming:       Resuming{Resume: None, NudgePackets: 8, AnnounceCount: 5, AnnounceInterval: time.Second},
		Holding:        Holding{HoldThenKill: 30 * time.Second, HoldSigterm: WaitHeld, Restart: KeepRestart, Answer: AnswerOff},
		Annotations:    true,
		Log:            Log{Level: "debug", File: "/var/log/netfreeze.log"},
		Containers: []Rule{
			{ID: "3f2a", Policy: Kill, TTL: ptr(time.Hour), Line: 23},
			{Pod: "kube-system/*", Name: "db-[0-9]", Backend: "nftables", Drain: ptr(5 * time.Second), Quiet: NoQuiet, QuietTime: ptr(time.Second), Answer: AnswerAlways, Line: 28},
		},
	}
	got, err := Parse([]byte(full), "f")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Error(diff)
	}
	again, err := Parse([]byte(got.TOML()), "f")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, again, cmpopts.IgnoreUnexported(Config{}), cmpopts.IgnoreFields(Rule{}, "Line")); diff != "" {
		t.Error("printed and read again:", diff)
	}
}

func TestParseEmptyIsDefault(t *testing.T) {
	got, err := Parse(nil, "f")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Error(diff)
	}
}

func TestParseProblems(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"unknown key", "\npolcy = \"run\"\n", []string{
			`f:2: unknown key "polcy" (did you mean "policy"?); allowed here: backend, policy, ttl, drain, quiet, quiet-time, restore-failure, resume, nudge-packets, announce-count, announce-interval, hold-then-kill, hold-sigterm, restart, answer, annotations, log, container`,
		}},
		{"unknown key in a table", "[log]\n\n  levle = 1", []string{
			`f:3: unknown key "levle" (did you mean "level"?); allowed here: level, file`,
		}},
		{"unknown table", "ttl = \"1m\"\n[logg.x]\na=1", []string{
			`f:2: unknown key "logg" (did you mean "log"?); allowed here: backend, policy, ttl, drain, quiet, quiet-time, restore-failure, resume, nudge-packets, announce-count, announce-interval, hold-then-kill, hold-sigterm, restart, answer, annotations, log, container`,
		}},
		{"bad word", `policy = "hodl"`, []string{
			`f:1: policy = "hodl": not one of "hold", "run", "isolate", "kill" (did you mean "hold"?)`,
		}},
		{"wrong type", "policy = 3\nannotations = \"yes\"\nbackend = [1]\nlog = 1\n", []string{
			`f:1: policy = 3: must be a string, one of "hold", "run", "isolate", "kill"`,
			`f:2: annotations = "yes": not one of true, false (without quotes)`,
			`f:3: backend = […]: must be a string, one of "auto", "nftables", "iptables", "iptables-nft", "iptables-legacy"`,
			`f:4: log = 1: must be a table: [log]`,
		}},
		{"durations", "ttl = 900\ndrain = \"100\"\n", []string{
			`f:1: ttl = 900: must be a duration with its unit in quotes, such as "900s"`,
			`f:2: drain = "100": must be a number with a unit (ms, s, m, h), such as "100s"`,
		}},
		{"numbers", "nudge-packets = 0\nannounce-count = \"3\"\n", []string{
			`f:1: nudge-packets = 0: must be a whole number from 1 to 64`,
			`f:2: announce-count = "3": must be a whole number from 0 to 10`,
		}},
		{"bounds", "ttl = \"0s\"\ndrain = \"-1s\"\n[[container]]\nid='*'\nttl = \"25h\"\ndrain = \"11s\"", []string{
			`f:1: ttl = "0s": must be from "1s" to "24h"`,
			`f:2: drain = "-1s": must be from "0s" to "10s"`,
			`f:5: ttl = "25h": must be from "1s" to "24h"`,
			`f:6: drain = "11s": must be from "0s" to "10s"`,
		}},
		{"rules", "[[container]]\npolicy = \"run\"\n[[container]]\nid = \"[\"\n[[container]]\npod = \"web\"\n[[container]]\nname = \"\"", []string{
			`f:1: container rule 1 matches nothing: give it id, name or pod`,
			`f:4: id = "[": not a glob: * ? [a-z] and \ are special, and it must not be empty`,
			`f:6: pod = "web": must be namespace/name, such as "default/web-*"`,
			`f:8: name = "": not a glob: * ? [a-z] and \ are special, and it must not be empty`,
		}},
		{"second rule of two", "[[container]]\nid = \"a\"\n\n[[container]]\nid = \"b\"\nnmae = 1", []string{
			`f:6: unknown key "nmae" (did you mean "name"?); allowed here: id, name, pod, backend, policy, ttl, drain, quiet, quiet-time, answer`,
		}},
		{"inline tables", "container = [\n {id = \"a\", policy = \"x\"},\n]", []string{
			`f:1: policy = "x": not one of "hold", "run", "isolate", "kill"`,
		}},
		{"dotted", "a.b = '''\n\n'''\nlog.level = \"loud\"", []string{
			`f:1: unknown key "a"; allowed here: backend, policy, ttl, drain, quiet, quiet-time, restore-failure, resume, nudge-packets, announce-count, announce-interval, hold-then-kill, hold-sigterm, restart, answer, annotations, log, container`,
			`f:4: level = "loud": not one of "panic", "fatal", "error", "warning", "info", "debug", "trace"`,
		}},
		{"log file", "[log]\nfile = \"x.log\"", []string{
			`f:2: file = "x.log": must be an absolute path, or empty for CRIU's log`,
		}},
		{"container is no list", "container = 1\n", []string{
			`f:1: container = 1: must be a list of tables: [[container]]`,
		}},
		{"syntax", "policy = \"run\"\nttl = \n", []string{`f:2: expected value but found '\n' instead`}},
		{"twice", "policy = \"run\"\npolicy = \"run\"\n", []string{`f:2: Key 'policy' has already been defined.`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse([]byte(tt.in), "f")
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			var want []string
			for _, line := range tt.want {
				want = append(want, code.Text(code.Config, line))
			}
			if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The log levels are written down here so that the scripts need not start a
// logger to check them; logrus must know the same.
func TestLogLevelsAreLogrus(t *testing.T) {
	var want []string
	for _, l := range logrus.AllLevels {
		want = append(want, l.String())
	}
	if got := LogLevels(); !slices.Equal(got, want) {
		t.Errorf("got %v, logrus has %v", got, want)
	}
}

func TestFormatDuration(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0:                               "0s",
		time.Second:                     "1s",
		100 * time.Millisecond:          "100ms",
		15 * time.Minute:                "15m",
		24 * time.Hour:                  "24h",
		10*time.Minute + 10*time.Second: "10m10s",
		time.Hour + time.Second:         "1h0m1s",
	} {
		if got := FormatDuration(in); got != want {
			t.Errorf("%v: got %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("policy = \"hodl\"\n[log]\nlevel=1\n[[container]]\n"))
	f.Add([]byte("a.'b c'.\"d\\\"\" = [\n1, # x\n{y=2}]\nttl=\"\"\"1m\"\"\"\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data, "f")
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("error is no list of problems: %#v", err)
			}
			lines := strings.Count(string(data), "\n") + 1
			for _, p := range problems {
				if p.Line < 1 || p.Line > lines {
					t.Errorf("line %d of %d: %s", p.Line, lines, p.Text)
				}
			}
			return
		}
		again, err := Parse([]byte(c.TOML()), "f")
		if err != nil {
			t.Fatalf("%v in\n%s", err, c.TOML())
		}
		if diff := cmp.Diff(c, again, cmpopts.IgnoreUnexported(Config{}), cmpopts.IgnoreFields(Rule{}, "Line")); diff != "" {
			t.Error(diff)
		}
		if _, err := c.For(identity.Container{ID: "3f2a", Name: "n", Pod: "s/p"}); err != nil {
			t.Error(err)
		}
	})
}
