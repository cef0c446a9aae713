// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

// The default file documents every key: uncommented, it says what the code has.
func TestDefaultConfig(t *testing.T) {
	uncommented := regexp.MustCompile(`(?m)^#([a-z])`).ReplaceAll(DefaultConfig, []byte("$1"))
	for name, content := range map[string][]byte{"as it is": DefaultConfig, "uncommented": uncommented} {
		c, err := config.Parse(content, "netfreeze.toml")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(config.Default(), c, cmpopts.IgnoreUnexported(config.Config{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	text := string(uncommented)
	for line := range strings.Lines(config.Default().TOML()) {
		if !strings.Contains(text, line) {
			t.Errorf("default file does not say %s", line)
		}
	}
	for _, p := range config.Policies() {
		if !strings.Contains(text, "#   \""+string(p)+"\"") {
			t.Errorf("default file does not explain policy %s", p)
		}
	}
	words := config.LogLevels()
	for _, k := range backend.All() {
		words = append(words, string(k))
	}
	for _, r := range config.RestoreFailures() {
		words = append(words, string(r))
	}
	for _, d := range []time.Duration{config.MinTTL, config.MaxTTL, config.MinDrain, config.MaxDrain} {
		words = append(words, config.FormatDuration(d))
	}
	for _, w := range words {
		if !strings.Contains(text, `"`+w+`"`) {
			t.Errorf("default file does not name the allowed value %s", w)
		}
	}
}

const begin = "# BEGIN netfreeze: written by netfreeze install, taken out by netfreeze uninstall"

func TestSetPolicy(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", begin + "\npolicy = \"kill\"\n# END netfreeze: kill\n"},
		{"no policy", "ttl = \"1m\"", begin + "\npolicy = \"kill\"\n# END netfreeze: kill\nttl = \"1m\""},
		{"default shown", "# x\n#policy = \"hold\"\n\n[log]\n#policy = 1\n", "# x\n#policy = \"hold\"\n" + begin + "\npolicy = \"kill\"\n# END netfreeze: kill\n\n[log]\n#policy = 1\n"},
		{"replaced", "ttl = \"1m\"\n policy=\"run\" # mine\n[log]\n", "ttl = \"1m\"\n" + begin + "\n# was:  policy=\"run\" # mine\npolicy = \"kill\"\n# END netfreeze: kill\n[log]\n"},
		{"replaced at the end", `policy = "run"`, begin + "\n# was: policy = \"run\"\npolicy = \"kill\"\n# END netfreeze: kill"},
		{"replaced, CRLF", "policy = \"run\"\r\n", begin + "\n# was: policy = \"run\"\r\npolicy = \"kill\"\n# END netfreeze: kill\n"},
		{"policy of a rule", "[[container]]\nid = \"a\"\npolicy = \"run\"\n", begin + "\npolicy = \"kill\"\n# END netfreeze: kill\n[[container]]\nid = \"a\"\npolicy = \"run\"\n"},
		{"there already", "policy = \"kill\"\n", "policy = \"kill\"\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := SetPolicy([]byte(tt.in), config.Kill, Origin{}, "f")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Error(diff)
			}
			policyRoundTrip(t, []byte(tt.in), got)
		})
	}
}

// policyRoundTrip sets the policy again, sets another one and takes it back.
func policyRoundTrip(t *testing.T, before, once []byte) {
	t.Helper()
	twice, err := SetPolicy(once, config.Kill, Origin{}, "f")
	if err != nil || !bytes.Equal(once, twice) {
		t.Errorf("set twice: got %q, want %q, %v", twice, once, err)
	}
	if bytes.Equal(once, before) {
		return
	}
	other, err := SetPolicy(once, config.Isolate, Origin{}, "f")
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{once, other} {
		after, undone, err := UnsetPolicy(content)
		if err != nil || !undone || !bytes.Equal(after, before) {
			t.Errorf("taken back: got %q, want %q, %t, %v", after, before, undone, err)
		}
	}
}

func TestSetPolicyRefuses(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"bad file":     {"policy = 1\n", `f:1: policy = 1: must be a string, one of "hold", "run", "isolate", "kill" [NF102]`},
		"many lines":   {"policy = \"\"\"\\\n run\"\"\"\n", `f: cannot find the line that sets the policy: write policy = "kill" into it by hand [NF102]`},
		"edited block": {"# BEGIN netfreeze\npolicy = \"run\"\n# END netfreeze: isolate\n", `line 1: the block was edited: write policy = "kill" into it by hand [NF801]`},
		"no end":       {"# BEGIN netfreeze\n", `line 1: "# BEGIN netfreeze" without a "# END netfreeze" after it: take out the block by hand [NF801]`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := SetPolicy([]byte(tt.in), config.Kill, Origin{}, "f"); err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestUnsetPolicyLeavesWhatWasChanged(t *testing.T) {
	for _, content := range []string{
		"",
		"policy = \"kill\"\n",
		"# BEGIN netfreeze\npolicy = \"run\"\n# END netfreeze: kill\n",
		"# BEGIN netfreeze\npolicy = \"kill\"\nttl = \"1m\"\n# END netfreeze: kill\n",
		"# BEGIN netfreeze\n# END netfreeze: kill\n",
	} {
		after, undone, err := UnsetPolicy([]byte(content))
		if err != nil || undone || string(after) != content {
			t.Errorf("%q: got %q, %t, %v", content, after, undone, err)
		}
	}
}

func FuzzSetPolicy(f *testing.F) {
	f.Add(DefaultConfig)
	f.Add([]byte("\"policy\" = 'run' # x\r\n[log]"))
	f.Add([]byte("policy = \"\"\"\\\nrun\"\"\"\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if b, err := findBlock(content); err != nil || b.found {
			return
		}
		once, err := SetPolicy(content, config.Kill, Origin{}, "f")
		if err != nil {
			var m *MarkerError
			if errors.As(err, &m) {
				t.Errorf("marker found in %q: %v", content, err)
			}
			return
		}
		policyRoundTrip(t, content, once)
	})
}
