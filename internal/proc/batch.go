// SPDX-License-Identifier: Apache-2.0

package proc

import "errors"

// batch is how many processes EachLiving has open at a time, where it can.
const batch = 64

// EachLiving calls do with those of the processes that have not ended, some at a time,
// and closes them afterwards: a tree may have more processes than this program may
// have open files (RLIMIT_NOFILE, which a caller may have lowered), and each open
// process is one. It takes fewer at a time where files are short. do is never called
// without a process.
//
// A failure, of do or to open a process, does not keep the others from being reached.
// The error joins all failures, so no living process is left out without one.
func EachLiving(refs []Ref, do func(Tree) error) error {
	var errs []error
	for size := batch; len(refs) > 0; {
		n := min(size, len(refs))
		tree, err := OpenLiving(refs[:n])
		if err != nil && n > 1 {
			size = max(n/4, 1) // leave descriptors to do, too, or find the one that fails
			continue
		}
		if err == nil && len(tree) > 0 {
			err = do(tree)
		}
		tree.Close()
		errs = append(errs, err)
		refs = refs[n:]
	}
	return errors.Join(errs...)
}
