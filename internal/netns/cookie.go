// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Cookie returns the number that the kernel gives to this network namespace and to
// no other one until the next boot (SO_NETNS_COOKIE, since Linux 5.14), unlike the
// inode of its [ID]. It is 0 if the kernel has no such numbers. It is read once.
func (n *Namespace) Cookie() (uint64, error) {
	n.cookieOnce.Do(func() { n.cookie, n.cookieErr = n.readCookie() })
	return n.cookie, n.cookieErr
}

func (n *Namespace) readCookie() (cookie uint64, err error) {
	err = n.Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) // it was never connected
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if errors.Is(err, unix.ENOPROTOOPT) {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read the cookie of %s: %w", n, err)
	}
	return cookie, nil
}
