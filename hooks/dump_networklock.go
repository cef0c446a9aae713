// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/nudge"
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
	d.listen()
	return nil
}

// listen hears what the peers wait for, for acknowledge. Without it they may take
// longer to go on.
func (d *Dump) listen() {
	if d.set.Resume != config.Nudge || d.set.Policy == config.Run || d.listener != nil {
		return
	}
	var err error
	if d.listener, err = nudge.Listen(d.freeze.NetNS()); err != nil {
		d.env.Log.Debug(err)
	}
}
