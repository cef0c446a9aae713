// SPDX-License-Identifier: Apache-2.0

// Package netlinksafe takes netlink dumps that can be relied on. When the kernel's
// table changes while it is being dumped, the answer may lack entries that were
// there all the time, and the kernel says so (NLM_F_DUMP_INTR, netlink(7));
// netlink returns what it has and netlink.ErrDumpInterrupted then. Here such a
// dump is repeated.
package netlinksafe

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// attempts is how often a dump is tried in all.
const attempts = 5

// Retry calls dump until it is not interrupted, at most a few times. If every
// attempt was interrupted, it returns what the last one found, and an error that
// wraps netlink.ErrDumpInterrupted: of a table that never rests there is nothing
// better.
func Retry[T any](dump func() (T, error)) (found T, err error) {
	for range attempts {
		if found, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return found, err
}

// LinkList returns the interfaces of the calling thread's network namespace. The
// error is as with [Retry].
func LinkList() ([]netlink.Link, error) { return Retry(netlink.LinkList) }

// AddrList returns the addresses of one family, or of netlink.FAMILY_ALL, in the
// calling thread's network namespace: those of one interface, or of all where
// link is nil. The error is as with [Retry].
func AddrList(link netlink.Link, family int) ([]netlink.Addr, error) {
	return Retry(func() ([]netlink.Addr, error) { return netlink.AddrList(link, family) })
}
