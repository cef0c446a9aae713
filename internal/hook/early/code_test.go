// SPDX-License-Identifier: Apache-2.0

//go:build amd64 || arm64

package early

import (
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// TestCode compares the code of what is said before Go's runtime starts with the
// constant of that name.
func TestCode(t *testing.T) {
	if want := code.Text(code.NoSettler, ""); noSettler != want {
		t.Errorf("%q, want %q", noSettler, want)
	}
}
