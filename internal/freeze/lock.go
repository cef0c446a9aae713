// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"fmt"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// patience is how long to wait for others, who need moments: not longer than an
// action of CRIU may take.
const patience = 10 * time.Second

// locker is locked or lockedIfPossible.
type locker func(*netns.Namespace, func() error) error

// locked runs change while no other process changes rules or records of ns. The
// lock is a file in the state directory, named by the namespace's cookie: a lock
// on the namespace's own file could be taken by any process in the namespace.
func locked(ns *netns.Namespace, change func() error) error {
	l, err := acquire(ns, patience)
	if err != nil {
		return lockError(ns, err)
	}
	defer l.Release()
	return change()
}

// lockedIfPossible is locked for what only takes something away. That must be possible
// where the state directory takes no new file, since the disk is full, say: then nobody
// else can take the lock either, and nobody can arm anything.
func lockedIfPossible(ns *netns.Namespace, change func() error) error {
	l, err := acquire(ns, patience)
	switch {
	case record.NoFile(err):
		return change()
	case err != nil:
		return lockError(ns, err)
	}
	defer l.Release()
	return change()
}

func lockError(ns *netns.Namespace, err error) error {
	return fmt.Errorf("lock %s against other changes: %w", ns, err)
}

func acquire(ns *netns.Namespace, patience time.Duration) (*record.Lock, error) {
	if err := record.MakeDir(); err != nil {
		return nil, err
	}
	cookie, err := ns.Cookie()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("netns-%d.lock", cookie)
	if cookie == 0 { // before Linux 5.14
		name = fmt.Sprintf("netns-inode-%d.lock", ns.ID().Ino)
	}
	return record.AcquireFile(name, patience)
}

// locked is the function of the same name for the freeze's own namespace.
func (f *Freeze) locked(change func() error) error { return locked(f.ns, change) }

// lockedIfPossible is the function of the same name for the freeze's own namespace.
func (f *Freeze) lockedIfPossible(change func() error) error { return lockedIfPossible(f.ns, change) }
