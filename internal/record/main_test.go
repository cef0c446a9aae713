// SPDX-License-Identifier: Apache-2.0

package record

import (
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// TestMain gives the tests a /run of their own.
func TestMain(m *testing.M) { nstest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
