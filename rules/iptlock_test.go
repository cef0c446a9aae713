// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/go-iptables/iptables"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// TestToolErrors has an iptables program, which stands in for one that does not get its
// lock, end with an exit code.
func TestToolErrors(t *testing.T) {
	for status, want := range map[int]code.Code{4: code.FilterBusy, 3: code.System} {
		path := filepath.Join(t.TempDir(), "iptables")
		text := fmt.Sprintf("#!/bin/sh\ncase $1 in --version) echo 'iptables v1.8.11 (legacy)';; *) echo 'no lock' >&2; exit %d;; esac\n", status)
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		tool, err := iptables.New(iptables.Path(path))
		if err != nil {
			t.Fatal(err)
		}
		_, err = tool.List("raw", "PREROUTING")
		err = code.Any(ofTool(fmt.Errorf("look: %w", err)))
		if got, ok := code.Of(err); !ok || got != want || !strings.HasSuffix(err.Error(), fmt.Sprintf("no lock [%s]", want)) {
			t.Errorf("exit code %d: %q, want %s", status, err, want)
		}
	}
}
