// SPDX-License-Identifier: Apache-2.0

package proc

import "slices"

// batch is how many processes are held at a time: a tree may have more tasks than
// this process may have descriptors.
const batch = 64

// EachLiving calls do with those of the processes that still exist, some at a time,
// and closes them afterwards. It stops at the first error, and returns it.
func EachLiving(refs []Ref, do func(Tree) error) error {
	for some := range slices.Chunk(refs, batch) {
		tree, err := OpenLiving(some)
		if err != nil {
			return err
		}
		err = do(tree)
		tree.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
