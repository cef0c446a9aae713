// SPDX-License-Identifier: Apache-2.0

// Package netns is the one place where a network namespace is opened, entered
// and compared with those that must not be frozen. Other packages need a handle
// from here to change anything in a namespace, and to freeze a whole namespace
// they need an [Isolated], which only [Namespace.Isolate] returns.
package netns

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// threadNet leads to the calling thread's own network namespace. /proc/self would
// lead to that of the thread group leader, which differs while this thread visits
// another namespace.
const threadNet = "/proc/thread-self/ns/net"

// ID identifies a network namespace while it exists: two handles with the same ID
// are of the same namespace. Afterwards the kernel may give the number to another
// one (see [Namespace.Cookie]).
type ID struct {
	Dev uint64 // device of the nsfs file system
	Ino uint64 // inode on it, the number that readlink /proc/PID/ns/net shows
}

// String returns the form that the kernel uses in /proc, "net:[INO]".
func (id ID) String() string { return fmt.Sprintf("net:[%d]", id.Ino) }

// Namespace is an open network namespace. It keeps the namespace alive until
// Close. Its methods may be called from several goroutines.
type Namespace struct {
	fd     vnetns.NsHandle
	id     ID
	origin string // where it was found, for messages

	cookieOnce sync.Once
	cookie     uint64
	cookieErr  error
}

// OpenPath opens the network namespace that a file refers to: a bind mount
// such as /run/netns/NAME or a link such as /proc/PID/ns/net. Any other kind
// of file is refused.
func OpenPath(path string) (*Namespace, error) {
	fd, err := vnetns.GetFromPath(path)
	if err != nil {
		return nil, code.Wrap(code.NetNSGone, fmt.Errorf("open network namespace %s: %w", path, err))
	}
	return adopt(fd, path)
}

// OpenSelf opens the calling thread's network namespace.
func OpenSelf() (*Namespace, error) { return OpenPath(threadNet) }

// OpenHost opens the network namespace of pid 1, which this project considers the
// host's. It needs the right to inspect pid 1 (CAP_SYS_PTRACE).
func OpenHost() (*Namespace, error) { return OpenPath(hostNet) }

// adopt makes a Namespace of fd after checking that it is one. It owns fd from then
// on, and closes it on an error.
func adopt(fd vnetns.NsHandle, origin string) (*Namespace, error) {
	id, err := identify(int(fd))
	if err != nil {
		_ = fd.Close()
		return nil, fmt.Errorf("%s is not a network namespace: %w", origin, err)
	}
	return &Namespace{fd: fd, id: id, origin: origin}, nil
}

// identify returns the identity of the network namespace behind fd. It checks the
// file system first, since to a device the ioctl number could mean something else.
func identify(fd int) (ID, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return ID{}, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return ID{}, code.New(code.NetNSGone, "the file is not on nsfs")
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return ID{}, fmt.Errorf("ask for the type of namespace: %w", err)
	}
	if kind != unix.CLONE_NEWNET {
		return ID{}, code.New(code.NetNSGone, "the file is a namespace of another type")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ID{}, err
	}
	return idOf(&st), nil
}

// statID returns the identity of the namespace that a /proc link leads to.
func statID(path string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return idOf(&st), nil
}

func idOf(st *unix.Stat_t) ID {
	return ID{Dev: uint64(st.Dev), Ino: st.Ino} //nolint:unconvert // the width of Dev depends on the architecture
}

// ID returns the namespace's identity.
func (n *Namespace) ID() ID { return n.id }

// FD returns the open file descriptor, which Close closes.
func (n *Namespace) FD() int { return int(n.fd) }

// String names the namespace and where it was found.
func (n *Namespace) String() string { return fmt.Sprintf("%s (%s)", n.id, n.origin) }

// Close closes the handle. Further calls do nothing.
func (n *Namespace) Close() error {
	if !n.fd.IsOpen() {
		return nil
	}
	return n.fd.Close()
}

// Do runs fn inside the namespace, on a thread of its own, waits for it, and
// returns its error unchanged. Processes that fn starts are in the namespace;
// goroutines that it starts are not.
func (n *Namespace) Do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// /proc/PID/ns/net shows where the process's first thread is, so
			// that must not move. It stays locked to this goroutine so that the
			// next one runs on another thread.
			done <- n.Do(fn)
			runtime.UnlockOSThread()
			return
		}
		home, err := vnetns.GetFromPath(threadNet)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter %s: open the thread's own namespace: %w", n, err)
			return
		}
		defer func() { _ = home.Close() }()
		err = n.visit(fn)
		// The thread returns to the runtime's pool only if it is certain to be
		// back in its own namespace. Otherwise it stays locked and ends with
		// this goroutine.
		if vnetns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// In runs fn inside the namespace, as [Namespace.Do] does, and returns what it returns.
func In[T any](n *Namespace, fn func() (T, error)) (v T, err error) {
	err = n.Do(func() (err error) {
		v, err = fn()
		return err
	})
	return v, err
}

// visit moves the calling thread, which must be locked, into the namespace and runs
// fn there.
func (n *Namespace) visit(fn func() error) error {
	if err := vnetns.Set(n.fd); err != nil {
		return fmt.Errorf("enter %s: %w", n, err)
	}
	switch here, err := statID(threadNet); {
	case err != nil:
		return fmt.Errorf("enter %s: check that it is there: %w", n, err)
	case here != n.id:
		return code.New(code.WrongNetNS, fmt.Sprintf("enter %s: the thread is in %s instead", n, here))
	}
	return fn()
}
