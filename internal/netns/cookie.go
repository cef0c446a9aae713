package netns

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Cookie returns the number that the kernel gives to a network namespace once
// and never again until the next boot (SO_NETNS_COOKIE, since Linux 5.14),
// unlike the inode of its [ID], which the next namespace may get. It is 0 where
// the kernel has none. An open namespace keeps its number, so it is asked once.
func (n *Namespace) Cookie() (uint64, error) {
	n.asked.Do(func() { n.cookie, n.cookieErr = n.askCookie() })
	return n.cookie, n.cookieErr
}

func (n *Namespace) askCookie() (cookie uint64, err error) {
	err = n.Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // it was never connected
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
