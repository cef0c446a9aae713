package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/hooks"
	"github.com/criu-netfreeze/criu-netfreeze/netns"
	"github.com/criu-netfreeze/criu-netfreeze/oci"
	"github.com/criu-netfreeze/criu-netfreeze/proc"
	"github.com/criu-netfreeze/criu-netfreeze/state"
)

// targetHelp explains TARGET for the commands that take one.
const targetHelp = `TARGET is a process id, the beginning of a container's id, or a network
namespace: a path such as /run/netns/web, its name there, or net:[4026532001].`

// records returns the records that a target names, once their transactions are
// over.
func records(target string) ([]*state.Record, error) {
	found, err := find(target)
	if err != nil {
		return nil, err
	}
	var settled []*state.Record
	for _, r := range found {
		now, err := hooks.Settled(r)
		if err != nil {
			return nil, err
		}
		if now != nil {
			settled = append(settled, now)
		}
	}
	return settled, nil
}

// find returns the records that a target names.
func find(target string) ([]*state.Record, error) {
	all, err := state.All()
	if err != nil {
		return nil, err
	}
	var found []*state.Record
	for _, r := range all {
		if matches(r, target) {
			found = append(found, r)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	// A namespace that is named in another way than in the record.
	ns, err := openNetNS(target)
	if err != nil {
		return nil, nil //nolint:nilerr // not a namespace either: nothing is found
	}
	defer ns.Close() //nolint:errcheck // opened for its identity
	return state.Of(ns.ID())
}

// matches reports whether a record is what target names.
func matches(r *state.Record, target string) bool {
	if pid, err := strconv.Atoi(target); err == nil {
		for _, p := range r.Tree {
			if p.PID == pid && p.Alive() {
				return true
			}
		}
	}
	return len(target) >= 3 && strings.HasPrefix(r.Container, target) ||
		target == r.ID || target == r.NetNS.String() ||
		r.Path != "" && (target == r.Path || target == filepath.Base(r.Path))
}

// openNetNS opens the network namespace that a target names directly: by path,
// by name, by identity, or as that of a process.
func openNetNS(target string) (*netns.Namespace, error) {
	if strings.ContainsRune(target, '/') {
		return netns.OpenPath(target)
	}
	if pid, err := strconv.Atoi(target); err == nil {
		p, err := proc.Open(pid)
		if err != nil {
			return nil, err
		}
		defer p.Close()
		return netns.OpenPID(p.PID, p.Start)
	}
	if ino, ok := strings.CutPrefix(target, "net:["); ok {
		n, err := strconv.ParseUint(strings.TrimSuffix(ino, "]"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not net:[INODE]", target)
		}
		return findInode(n)
	}
	for _, dir := range []string{"/run/netns", "/var/run/netns"} {
		ns, err := netns.OpenPath(filepath.Join(dir, target))
		if !errors.Is(err, os.ErrNotExist) {
			return ns, err
		}
	}
	root, err := oci.FindByID(target)
	if err != nil {
		return nil, fmt.Errorf("%q is no process id, no network namespace in /run/netns, and %w", target, err)
	}
	return netns.OpenPID(root.PID, root.Start)
}

// findInode opens the live namespace with an inode. All are on one nsfs.
func findInode(ino uint64) (*netns.Namespace, error) {
	self, err := netns.OpenSelf()
	if err != nil {
		return nil, err
	}
	defer self.Close() //nolint:errcheck // opened for its device
	return netns.Find(netns.ID{Dev: self.ID().Dev, Ino: ino})
}
