// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

// TestPolicy shows what applies to containers that are described.
func TestPolicy(t *testing.T) {
	if _, err := os.Stat(config.Path); err == nil {
		t.Skipf("%s is there, and says something else", config.Path)
	}
	out, _, err := runCommand(newPolicyCmd(), "--pod", "shop/db-0", "--annotation", "kill")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pod              shop/db-0", "policy           hold, by ", "ignored, annotations = false", "ttl              15m", "hold-then-kill   0s"} {
		if !strings.Contains(out, want) {
			t.Errorf("it lacks %q:\n%s", want, out)
		}
	}
	out, _, err = runCommand(newPolicyCmd(), "--name", "db", "-o", "json")
	var a applied
	if err != nil || json.Unmarshal([]byte(out), &a) != nil || a.Policy != config.Hold || a.Container.Name != "db" || len(a.Settings) == 0 {
		t.Errorf("%v: %s", err, out)
	}
	for _, args := range [][]string{{}, {"web", "--pod", "a/b"}, {"--pod", "a/b", "-o", "yaml"}} {
		if _, _, err := runCommand(newPolicyCmd(), args...); err == nil {
			t.Errorf("%v is not refused", args)
		}
	}
}
