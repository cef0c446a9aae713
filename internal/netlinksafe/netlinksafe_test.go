// SPDX-License-Identifier: Apache-2.0

package netlinksafe

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestRetry(t *testing.T) {
	interrupted, other := fmt.Errorf("dump: %w", netlink.ErrDumpInterrupted), errors.New("no such table")
	for _, tc := range []struct {
		name  string
		fails []error // of the first attempts
		err   error
		calls int
	}{
		{"at once", nil, nil, 1},
		{"interrupted twice", []error{interrupted, interrupted}, nil, 3},
		{"another error", []error{other}, other, 1},
		{"interrupted, then another error", []error{interrupted, other}, other, 2},
		{"never at rest", []error{interrupted, interrupted, interrupted, interrupted, interrupted, nil}, netlink.ErrDumpInterrupted, attempts},
	} {
		calls := 0
		found, err := Retry(func() (int, error) {
			calls++
			if calls <= len(tc.fails) {
				return calls, tc.fails[calls-1]
			}
			return calls, nil
		})
		if !errors.Is(err, tc.err) || calls != tc.calls || found != calls {
			t.Errorf("%s: found %d, %v after %d calls; want %v after %d", tc.name, found, err, calls, tc.err, tc.calls)
		}
	}
}
