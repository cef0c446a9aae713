package tcp

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/proc"
)

// repairOffNoProbe leaves repair mode without the window probe that a plain 0
// sends (TCP_REPAIR_OFF_NO_WP in linux/tcp.h, since Linux 4.19).
const repairOffNoProbe = -1

// Reuse remembers which sockets had SO_REUSEADDR, by socket inode: switching
// TCP_REPAIR on and off overwrites it (tcp_setsockopt in net/ipv4/tcp.c).
type Reuse map[uint32]bool

// Silence switches TCP_REPAIR on for every TCP socket of the tree that can have
// it. From then on closing the socket, by close(2) or by the end of the task,
// sends nothing and leaves nothing behind. The tasks must be stopped: an
// application that runs gets EINVAL from a socket in repair mode. Returned is
// what Restore needs. A failure does not keep the other sockets from being
// treated.
func Silence(tree proc.Tree) (Reuse, error) {
	reuse := Reuse{}
	err := eachSocket(tree, func(fd int, inode uint32) error {
		if accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || accepts != 0 {
			return err // a listening socket has no peer, and the kernel refuses it (tcp_can_repair_sock)
		}
		on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR)
		if err != nil {
			return fmt.Errorf("read TCP_REPAIR: %w", err)
		}
		if on == 1 {
			return nil
		}
		addr, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
		if err != nil {
			return fmt.Errorf("read SO_REUSEADDR: %w", err)
		}
		if addr != 0 {
			reuse[inode] = true
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			return fmt.Errorf("switch TCP_REPAIR on: %w", err)
		}
		return nil
	})
	return reuse, err
}

// Restore switches TCP_REPAIR off again wherever it is on and sends nothing. A
// socket gets SO_REUSEADDR back if reuse says so, or if the tree listens on its
// port with it: a connection inherits the option from its listener, and where
// CRIU was killed half-way nobody is left who knows more. It returns how many
// sockets were in repair mode, and where the connections among them stand.
func Restore(tree proc.Tree, reuse Reuse) (n int, streams []Stream, err error) {
	listening := map[uint16]bool{}
	err = eachSocket(tree, func(fd int, _ uint32) error {
		accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err != nil || accepts == 0 {
			return err
		}
		addr, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
		if err != nil || addr == 0 {
			return err
		}
		local, err := address(unix.Getsockname(fd))
		listening[local.Port()] = true
		return err
	})
	err2 := eachSocket(tree, func(fd int, inode uint32) error {
		on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR)
		if err != nil {
			return fmt.Errorf("read TCP_REPAIR: %w", err)
		}
		if on != 1 {
			return nil
		}
		n++
		local, err := address(unix.Getsockname(fd))
		if err != nil {
			return fmt.Errorf("read the local address: %w", err)
		}
		if remote, err := address(unix.Getpeername(fd)); err == nil {
			if s, err := readStream(fd, Tuple{Local: local, Remote: remote}); err == nil {
				streams = append(streams, s)
			}
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOffNoProbe); err != nil {
			return fmt.Errorf("switch TCP_REPAIR off: %w", err)
		}
		if !reuse[inode] && !listening[local.Port()] {
			return nil
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	return n, streams, errors.Join(err, err2)
}

// address converts what getsockname(2) and getpeername(2) return.
func address(sa unix.Sockaddr, err error) (netip.AddrPort, error) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), err
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)), err
	}
	return netip.AddrPort{}, err
}

// Inodes returns the inodes of all sockets that the tree holds.
func Inodes(tree proc.Tree) (map[uint32]bool, error) {
	set := map[uint32]bool{}
	for _, p := range tree {
		fds, err := sockets(p)
		if err != nil {
			return nil, err
		}
		for _, inode := range fds {
			set[inode] = true
		}
	}
	return set, nil
}

// Owned returns the connections among socks that belong to the tree.
func Owned(socks []Socket, inodes map[uint32]bool) []Tuple {
	var tuples []Tuple
	for _, s := range socks {
		if s.Connected() && inodes[s.Inode] {
			tuples = append(tuples, s.Tuple)
		}
	}
	return tuples
}

// eachSocket calls f with a duplicate of every TCP socket of the tree, once per
// socket however many tasks share it. All failures are reported.
func eachSocket(tree proc.Tree, f func(fd int, inode uint32) error) error {
	var errs []error
	seen := map[uint32]bool{}
	for _, p := range tree {
		fds, err := sockets(p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for fd, inode := range fds {
			if seen[inode] {
				continue
			}
			seen[inode] = true
			if err := withDup(p, fd, func(dup int) error { return f(dup, inode) }); err != nil {
				errs = append(errs, fmt.Errorf("socket %d of pid %d: %w", fd, p.PID, err))
			}
		}
	}
	return errors.Join(errs...)
}

// withDup calls f with a duplicate of descriptor fd of p if that is a TCP socket.
func withDup(p *proc.Process, fd int, f func(int) error) error {
	dup, err := p.Dup(fd)
	if err != nil {
		if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) {
			return nil // closed, or ended, since it was listed
		}
		return err
	}
	defer unix.Close(dup) //nolint:errcheck // a duplicate, nothing to lose
	if !isTCP(dup) {
		return nil
	}
	return f(dup)
}

// isTCP asks for domain and protocol both: other domains number protocols of
// their own.
func isTCP(fd int) bool {
	domain, err1 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	proto, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err1 == nil && err2 == nil && proto == unix.IPPROTO_TCP &&
		(domain == unix.AF_INET || domain == unix.AF_INET6)
}

// sockets maps the descriptors of p that are sockets to the sockets' inodes.
func sockets(p *proc.Process) (map[int]uint32, error) { return someSockets(p, -1) }

// someSockets is sockets for the first limit descriptors; -1 is all of them.
// Other files are not touched: to close a duplicate of one may call for the
// program behind its file system, which may be stopped.
func someSockets(p *proc.Process, limit int) (map[int]uint32, error) {
	dir := fmt.Sprintf("/proc/%d/fd", p.PID)
	d, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close() //nolint:errcheck // opened for reading
	names, err := d.Readdirnames(limit)
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	found := map[int]uint32{}
	buf := make([]byte, 64)
	for _, name := range names {
		n, err := unix.Readlinkat(int(d.Fd()), name, buf)
		if err != nil {
			continue // closed since it was listed
		}
		ino, ok := strings.CutPrefix(string(buf[:n]), "socket:[")
		if !ok {
			continue
		}
		inode, err1 := strconv.ParseUint(strings.TrimSuffix(ino, "]"), 10, 32)
		fd, err2 := strconv.Atoi(name)
		if err1 == nil && err2 == nil {
			found[fd] = uint32(inode)
		}
	}
	return found, nil
}
