// SPDX-License-Identifier: Apache-2.0

package code

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

func TestText(t *testing.T) {
	err := New(Expired, "the freeze ended")
	if got, want := err.Error(), "the freeze ended [NF401]"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if Wrap(System, nil) != nil || Any(nil) != nil {
		t.Error("no error has got a code")
	}
	if got := Wrap(System, err); got.Error() != err.Error() {
		t.Errorf("a second code was given: %v", got)
	}
}

func TestAny(t *testing.T) {
	special := New(Expired, "x")
	for _, tc := range []struct {
		err  error
		want Code
	}{
		{special, Expired},
		{fmt.Errorf("doing: %w", special), Expired},
		{errors.Join(os.ErrNotExist, special), Expired},
		{os.ErrNotExist, System},
		{&os.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}, System},
		{fmt.Errorf("write: %w", syscall.ENOSPC), NoSpace},
		{syscall.EPERM, Forbidden},
		{syscall.EMFILE, NoResource},
	} {
		err := Any(tc.err)
		if got, ok := Of(err); !ok || got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%v: code %v, want %v", err, got, tc.want)
		}
	}
}
