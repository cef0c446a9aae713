// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"sync"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// UnreadableError is a record that cannot be used: it is damaged, or a later program
// wrote it.
type UnreadableError struct {
	ID    string // of the record, by the name of its file
	Newer int    // the version, if a later program wrote it; 0 if it is damaged

	text []byte
	err  error
}

// Error names the file and the remedy.
func (e *UnreadableError) Error() string {
	if e.Newer != 0 {
		return code.Text(e.Code(), fmt.Sprintf("the record %s is of version %d, and this program knows up to %d: use the program that wrote it, or a newer one (remove the file if nothing is frozen)", path(e.ID), e.Newer, version))
	}
	return code.Text(e.Code(), fmt.Sprintf("read the record %s: %v (remove the file if nothing is frozen)", path(e.ID), e.err))
}

// Code implements [code.Coder].
func (*UnreadableError) Code() code.Code { return code.Record }

// Unwrap returns why the record cannot be used.
func (e *UnreadableError) Unwrap() error { return e.err }

// Remove deletes the record's file. It is no error if there is none.
func (e *UnreadableError) Remove() error { return (&Record{ID: e.ID}).Remove() }

// netnsText is how every version so far has written a record's namespace.
var netnsText = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`"netns":\s*\{\s*"Dev":\s*(\d+),\s*"Ino":\s*(\d+)\s*\}`)
})

// NetNS returns the namespace that the record is about, as far as its text still tells.
func (e *UnreadableError) NetNS() (id netns.ID, ok bool) {
	m := netnsText().FindSubmatch(e.text)
	if m == nil {
		return netns.ID{}, false
	}
	var err1, err2 error
	id.Dev, err1 = strconv.ParseUint(string(m[1]), 10, 64)
	id.Ino, err2 = strconv.ParseUint(string(m[2]), 10, 64)
	return id, err1 == nil && err2 == nil
}

// Unreadable returns the records that cannot be used.
func Unreadable() ([]*UnreadableError, error) {
	_, bad, err := read()
	return bad, err
}

// read reads the whole directory.
func read() (all []*Record, bad []*UnreadableError, err error) {
	ids, err := recordIDs()
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, id := range ids {
		r, err := Load(id)
		var unreadable *UnreadableError
		switch {
		case err == nil:
			all = append(all, r)
		case errors.As(err, &unreadable):
			bad = append(bad, unreadable)
		case !errors.Is(err, os.ErrNotExist):
			errs = append(errs, err)
		}
	}
	return all, bad, errors.Join(errs...)
}
