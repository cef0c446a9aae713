// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// networkLock arms the freeze: CRIU has seized the tasks, so none of them sees
// a failing system call. It comes only if the tree's netns is not CRIU's own.
func (d *Dump) networkLock() error {
	if err := d.check(action.NetworkLock, dumpFrozen); err != nil {
		return err
	}
	if d.record().Scope != record.NetNS {
		return nil
	}
	if err := d.freeze.Arm(); err != nil {
		return fmt.Errorf("%w (the tasks go on as they were)", err)
	}
	d.to(dumpFrozen)
	d.env.Log.Debugf("network-lock: frozen %s", d.record().NetNS)
	return nil
}
