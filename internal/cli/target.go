// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// targetHelp explains TARGET for the commands that take one.
const targetHelp = `TARGET is a process id, the beginning of a container's id, or a network
namespace: a path such as /run/netns/web, its name there, or net:[4026532001].`

// records returns the records that a target names, once their transactions are
// over.
func records(target string) ([]*record.Record, error) {
	found, err := find(target)
	if err != nil {
		return nil, err
	}
	var settled []*record.Record
	for _, r := range found {
		now, err := freeze.Settled(r)
		if err != nil {
			return nil, err
		}
		if now != nil {
			settled = append(settled, now)
		}
	}
	return settled, nil
}

// find returns the records that a target names: those of a network namespace,
// or of one tree. Anything else that fits more than one container is refused.
func find(target string) ([]*record.Record, error) {
	all, err := record.All()
	if err != nil {
		fmt.Fprintf(os.Stderr, "netfreeze: warning: %v\n", err) // the others can still be found
	}
	if pid, err := strconv.Atoi(target); err == nil {
		if found := filter(all, func(r *record.Record) bool {
			return slices.ContainsFunc(r.Tree, func(p proc.Ref) bool { return p.PID == pid && p.Alive() })
		}); len(found) > 0 {
			return found, nil
		}
	}
	if ns, err := directNetNS(target); err == nil {
		defer ns.Close()
		return record.Of(ns)
	}
	found := filter(all, func(r *record.Record) bool {
		return r.Container.ID == target || r.ID == target || r.NetNS.String() == target
	})
	if len(found) > 0 || len(target) < 3 || isPID(target) {
		return found, nil // a number is a process id, and never the beginning of a container's id
	}
	found = filter(all, func(r *record.Record) bool {
		return strings.HasPrefix(r.Container.ID, target) || r.Path != "" && (r.Path == target || filepath.Base(r.Path) == target)
	})
	for _, r := range found {
		if r.Container.ID != found[0].Container.ID {
			return nil, code.New(code.Target, fmt.Sprintf("%q fits containers %s and %s: give more of the id", target, found[0].Container.ID, r.Container.ID))
		}
	}
	return found, nil
}

// isPID reports whether a target can be nothing but a process id.
func isPID(target string) bool { return strings.Trim(target, "0123456789") == "" }

func filter(all []*record.Record, want func(*record.Record) bool) []*record.Record {
	return slices.DeleteFunc(slices.Clone(all), func(r *record.Record) bool { return !want(r) })
}

// openNetNS opens the network namespace that a target names, or the one of the
// process or container that it names.
func openNetNS(target string) (*netns.Namespace, error) {
	if pid, err := strconv.Atoi(target); err == nil {
		p, err := proc.Open(pid)
		if err != nil {
			return nil, err
		}
		defer p.Close()
		return netns.OpenPID(p.PID, p.Start)
	}
	ns, err := directNetNS(target)
	if !errors.Is(err, os.ErrNotExist) || strings.ContainsRune(target, '/') {
		return ns, err
	}
	root, err := findContainer(target)
	if err != nil {
		return nil, err
	}
	return netns.OpenPID(root.PID, root.Start)
}

// findContainer finds the container whose id begins with a target that can be nothing
// else.
func findContainer(target string) (proc.Ref, error) {
	root, err := container.FindByID(target)
	if err != nil {
		return proc.Ref{}, code.Wrap(code.Target, fmt.Errorf("%q is no process id, no network namespace in /run/netns, and %w", target, err))
	}
	return root, nil
}

// directNetNS opens the network namespace that a target itself names: by path,
// by name, or by identity.
func directNetNS(target string) (*netns.Namespace, error) {
	if strings.ContainsRune(target, '/') {
		return netns.OpenPath(target)
	}
	if ino, ok := strings.CutPrefix(target, "net:["); ok {
		n, err := strconv.ParseUint(strings.TrimSuffix(ino, "]"), 10, 64)
		if err != nil {
			return nil, code.New(code.Target, fmt.Sprintf("%q is not net:[INODE]", target))
		}
		return findInode(n)
	}
	ns, err := netns.OpenPath(filepath.Join("/run/netns", target))
	if errors.Is(err, os.ErrNotExist) {
		return netns.OpenPath(filepath.Join("/var/run/netns", target))
	}
	return ns, err
}

// findInode opens the live namespace with an inode. All are on one nsfs.
func findInode(ino uint64) (*netns.Namespace, error) {
	self, err := netns.OpenSelf()
	if err != nil {
		return nil, err
	}
	defer self.Close()
	return netns.Find(netns.ID{Dev: self.ID().Dev, Ino: ino})
}
