// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// repairOffNoProbe is the value of TCP_REPAIR that leaves repair mode without the
// window probe that 0 sends (TCP_REPAIR_OFF_NO_WP in linux/tcp.h, since Linux 4.19).
const repairOffNoProbe = -1

// EnterRepair switches TCP_REPAIR on for every TCP socket of the tree that can
// have it. From then on closing the socket, by close(2) or by the end of the
// task, sends nothing and leaves nothing behind. The tasks must be stopped: a
// running application gets EINVAL from a socket in repair mode. The result is
// what LeaveRepair needs to undo it; sockets that were in repair mode already are
// not in it. A failure on one socket does not stop the others from being treated.
func EnterRepair(tree proc.Tree) (Reuse, error) {
	reuse := Reuse{}
	var mu sync.Mutex
	err := eachTCP(tree, func(fd int, inode uint32) error {
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
			mu.Lock()
			reuse[inode] = true
			mu.Unlock()
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			return fmt.Errorf("switch TCP_REPAIR on: %w", err)
		}
		return nil
	})
	return reuse, err
}

// ForceRepair is EnterRepair for tasks that are about to be killed: it cannot be
// undone. It does not look at a socket first but simply tries, which is faster: a
// socket that cannot have TCP_REPAIR has no connection either.
func ForceRepair(tree proc.Tree) error {
	return eachSocket(tree, func(fd int, _ uint32) error {
		err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
		if err == nil || !isTCP(fd) {
			return nil
		}
		if accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || accepts != 0 {
			return err
		}
		return fmt.Errorf("switch TCP_REPAIR on: %w", err)
	})
}

// LeaveRepair switches TCP_REPAIR off again wherever it is on and sends nothing.
// A socket gets SO_REUSEADDR back if reuse says so, or if the tree listens on its
// port with it: a connection inherits the option from its listener, and if CRIU
// was killed half-way nothing else tells. It returns how many sockets were in
// repair mode, and where the connections among them stand.
func LeaveRepair(tree proc.Tree, reuse Reuse) (n int, streams []Stream, err error) {
	var mu sync.Mutex
	listening := map[uint16]bool{}
	err = eachTCP(tree, func(fd int, _ uint32) error {
		accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err != nil || accepts == 0 {
			return err
		}
		addr, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
		if err != nil || addr == 0 {
			return err
		}
		local, err := address(unix.Getsockname(fd))
		mu.Lock()
		listening[local.Port()] = true
		mu.Unlock()
		return err
	})
	err2 := eachTCP(tree, func(fd int, inode uint32) error {
		on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR)
		if err != nil {
			return fmt.Errorf("read TCP_REPAIR: %w", err)
		}
		if on != 1 {
			return nil
		}
		local, err := address(unix.Getsockname(fd))
		if err != nil {
			return fmt.Errorf("read the local address: %w", err)
		}
		var found []Stream
		if remote, err := address(unix.Getpeername(fd)); err == nil {
			if s, err := readStream(fd, NewTuple(local, remote)); err == nil {
				found = append(found, s)
			}
		}
		mu.Lock()
		n++
		streams = append(streams, found...)
		mu.Unlock()
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
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), err
	}
	return netip.AddrPort{}, err
}
