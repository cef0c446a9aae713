// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// descriptor is a task's file descriptor that is a socket.
type descriptor struct {
	task  *proc.Process
	fd    int
	inode uint32
}

// Inodes returns the inodes of all sockets that the tree's processes have open.
func Inodes(tree proc.Tree) (map[uint32]bool, error) {
	set := map[uint32]bool{}
	for _, p := range tree {
		fds, err := sockets(p)
		if err != nil {
			return nil, err
		}
		for _, d := range fds {
			set[d.inode] = true
		}
	}
	return set, nil
}

// Connections returns the connections among socks that a process has open.
func Connections(socks []Socket) []Tuple {
	return connections(socks, func(inode uint32) bool { return inode != 0 })
}

// Receiving returns those connections among socks that a process has open and whose peer
// may send more.
func Receiving(socks []Socket) []Socket {
	return slices.DeleteFunc(slices.Clone(socks), func(s Socket) bool {
		switch s.State {
		case Established, FinWait1, FinWait2:
			return s.Inode == 0
		}
		return true
	})
}

// Owned returns the connections among socks whose inode is one of inodes.
func Owned(socks []Socket, inodes map[uint32]bool) []Tuple {
	return connections(socks, func(inode uint32) bool { return inodes[inode] })
}

func connections(socks []Socket, include func(inode uint32) bool) []Tuple {
	tuples := make([]Tuple, 0, len(socks))
	for _, s := range socks {
		if s.Connected() && include(s.Inode) {
			tuples = append(tuples, s.Tuple)
		}
	}
	return tuples
}

// eachTCP calls f with a duplicate of every TCP socket of the tree, as
// eachSocket does.
func eachTCP(tree proc.Tree, f func(fd int, inode uint32) error) error {
	return eachSocket(tree, func(fd int, inode uint32) error {
		if !isTCP(fd) {
			return nil
		}
		return f(fd, inode)
	})
}

// eachSocket calls f with a duplicate of every socket of the tree, once per
// socket however many tasks share it, and on all processors at once. A failure on
// one socket does not stop the others; the error joins them all.
func eachSocket(tree proc.Tree, f func(fd int, inode uint32) error) error {
	var (
		all  []descriptor
		errs []error
		seen = map[uint32]bool{}
	)
	for _, p := range tree {
		fds, err := sockets(p)
		errs = append(errs, err)
		for _, d := range fds {
			if !seen[d.inode] {
				seen[d.inode] = true
				all = append(all, d)
			}
		}
	}
	failed := make([]error, len(all))
	parallel(len(all), func(i int) {
		if err := all[i].with(f); err != nil {
			failed[i] = fmt.Errorf("socket %d of pid %d: %w", all[i].fd, all[i].task.PID, err)
		}
	})
	return errors.Join(append(errs, failed...)...)
}

// with calls f with a duplicate of the descriptor.
func (d descriptor) with(f func(fd int, inode uint32) error) error {
	dup, err := d.task.Dup(d.fd)
	if err != nil {
		if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) {
			return nil // the file was closed, or the task has ended, since it was listed
		}
		return err
	}
	defer unix.Close(dup) // a duplicate, nothing to lose
	return f(dup, d.inode)
}

// isTCP reports whether fd is a TCP socket. It looks at both domain and protocol,
// since other domains have protocol numbers of their own.
func isTCP(fd int) bool {
	domain, err1 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	proto, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err1 == nil && err2 == nil && proto == unix.IPPROTO_TCP &&
		(domain == unix.AF_INET || domain == unix.AF_INET6)
}

// sockets returns the descriptors of p that are sockets. Other files are not
// duplicated: closing a duplicate may need an answer from the program behind its
// file system, which may be stopped.
func sockets(p *proc.Process) ([]descriptor, error) {
	path := fmt.Sprintf("/proc/%d/fd", p.PID)
	dir, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close() // opened for reading
	var (
		found []descriptor
		mu    sync.Mutex
		wg    sync.WaitGroup
	)
	for at := int(dir.Fd()); err == nil; {
		var names []string
		names, err = dir.Readdirnames(batch)
		wg.Go(func() { // meanwhile the next names are read
			some := make([]descriptor, 0, len(names))
			for _, name := range names {
				inode := socketInode(at, name)
				if fd, err := strconv.Atoi(name); err == nil && inode != 0 {
					some = append(some, descriptor{p, fd, inode})
				}
			}
			mu.Lock()
			found = append(found, some...)
			mu.Unlock()
		})
	}
	wg.Wait()
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	return found, nil
}

// socketInode reads one link of /proc/PID/fd. It returns INODE if the target is
// "socket:[INODE]", and 0 if it is anything else or was closed since it was listed.
func socketInode(dir int, name string) uint32 {
	var buf [64]byte
	n, err := unix.Readlinkat(dir, name, buf[:])
	if err != nil {
		return 0
	}
	number, ok := bytes.CutPrefix(buf[:n], []byte("socket:["))
	if !ok {
		return 0
	}
	inode, err := strconv.ParseUint(string(bytes.TrimSuffix(number, []byte("]"))), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(inode)
}

// batch is how many descriptors one goroutine takes at a time.
const batch = 256

// parallel calls f with 0 to n-1 on all processors and waits until all calls have
// returned. It is meant for calls of a few microseconds each.
func parallel(n int, f func(i int)) {
	var (
		next atomic.Int64
		wg   sync.WaitGroup
	)
	for range min(runtime.GOMAXPROCS(0), (n+batch-1)/batch) {
		wg.Go(func() {
			for end := int(next.Add(batch)); end-batch < n; end = int(next.Add(batch)) {
				for i := end - batch; i < min(end, n); i++ {
					f(i)
				}
			}
		})
	}
	wg.Wait()
}
