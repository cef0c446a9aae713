// SPDX-License-Identifier: Apache-2.0

package hooks

import "errors"

// postResume ends a restore that succeeded. CRIU may stay for as long as the tasks
// run (restore without -d), so the settler does not wait for its end.
func (r *Restore) postResume() error {
	err := r.release(r.freeze.Thaw)
	if err == nil {
		err = r.freeze.Forget()
	}
	if err != nil {
		return errors.Join(err, r.freeze.Save())
	}
	r.to(restoreFinished)
	return nil
}
