// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netlinksafe"
)

// tentative is how long to wait for an IPv6 address whose duplicate address
// detection is under way; the kernel takes a second by default.
const tentative = 3 * time.Second

// Missing returns those of the addresses, each once, to which no socket can be bound in
// the namespace. The kernel is asked by binding one, as CRIU will; link-local addresses
// are left out, since they need an interface to bind. It waits for addresses of IPv6
// that are about to come.
func (n *Namespace) Missing(addrs []netip.Addr) ([]netip.Addr, error) {
	var wanted []netip.Addr
	for _, a := range addrs {
		if !a.IsLinkLocalUnicast() && !slices.Contains(wanted, a) {
			wanted = append(wanted, a)
		}
	}
	var missing []netip.Addr
	deadline := time.Now().Add(tentative)
	err := n.Do(func() error {
		for _, a := range wanted {
			ok, err := local(a)
			for err == nil && !ok && a.Is6() && time.Now().Before(deadline) {
				var coming bool
				if coming, err = isTentative(a); err != nil || !coming {
					break
				}
				time.Sleep(20 * time.Millisecond)
				ok, err = local(a)
			}
			if err != nil {
				return fmt.Errorf("ask whether the address %s is there: %w", a, err)
			}
			if !ok {
				missing = append(missing, a)
			}
		}
		return nil
	})
	return missing, err
}

// List prints addresses for a message: "192.0.2.1, 2001:db8::1".
func List(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}

// local reports whether a socket can be bound to a in this thread's namespace.
func local(a netip.Addr) (bool, error) {
	var sa unix.Sockaddr
	family := unix.AF_INET6
	if a.Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: a.As4()}
	} else {
		sa = &unix.SockaddrInet6{Addr: a.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	err = unix.Bind(fd, sa)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return false, nil
	}
	if err != nil || !a.Is4() {
		return err == nil, err
	}
	// Where no interface was ever up, every address of IPv4 can be bound: there is no table
	// of local ones (__inet_dev_addr_type in net/ipv4/fib_frontend.c). No packet leaves.
	_, err = netlink.RouteGet(a.AsSlice())
	if errors.Is(err, unix.ENETUNREACH) {
		return false, nil
	}
	return err == nil, err
}

// isTentative reports whether the address may be about to come: it is there and
// still being tested, or that cannot be told since the kernel's table changed while
// it was read.
func isTentative(a netip.Addr) (bool, error) {
	addrs, err := netlinksafe.AddrList(nil, unix.AF_INET6)
	return tentativeAmong(addrs, err, a)
}

func tentativeAmong(addrs []netlink.Addr, err error, a netip.Addr) (bool, error) {
	for _, x := range addrs {
		if ip, ok := netip.AddrFromSlice(x.IP); ok && ip == a {
			return x.Flags&unix.IFA_F_TENTATIVE != 0 && x.Flags&unix.IFA_F_DADFAILED == 0, nil
		}
	}
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return true, nil
	}
	return false, err
}
