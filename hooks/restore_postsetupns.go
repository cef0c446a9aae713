// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// postSetupNS makes sure of the namespace: now the root task is in it.
func (r *Restore) postSetupNS(req action.Request) error {
	if err := r.check(action.PostSetupNS, restoreFrozen); err != nil {
		return err
	}
	root, err := openRoot(req)
	if err != nil {
		return err
	}
	defer root.Close()
	r.record().Tree = []proc.Ref{root.Ref}
	ns, err := netns.OpenProcess(root)
	if err != nil {
		return err
	}
	if before := r.freeze.NetNS(); before != nil {
		if before.ID() == ns.ID() {
			_ = ns.Close()
			return r.freeze.Save()
		}
		r.env.Log.Warn(code.New(code.WrongNetNS, fmt.Sprintf("post-setup-namespaces: the tasks are in %s, not in %s as it looked before", ns, before)))
		if err := r.freeze.Leave(); err != nil {
			r.env.Log.Warn(code.Any(err))
		}
	}
	if err := r.freeze.Open(ns); err != nil {
		_ = ns.Close()
		return err
	}
	if r.record().Addressed {
		there, err := r.look(r.freeze.NetNS())
		if err != nil {
			return err
		}
		if err := r.checkTarget(there); err != nil {
			return err
		}
	}
	if err := r.freezeTarget(); err != nil {
		return err
	}
	r.announceFrozen()
	r.env.Log.Infof("post-setup-namespaces: frozen %s", r.record().NetNS)
	return nil
}
