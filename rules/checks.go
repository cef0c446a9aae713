// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// These checks are the same for every implementation of Filter.

// maxTTL keeps the end of a freeze within what both kernel interfaces can hold
// (for xt_time, dates until 2038).
const maxTTL = 365 * 24 * time.Hour

// CheckTTL returns an error for a time to live that no back end could enforce.
func CheckTTL(ttl time.Duration) error {
	if ttl <= 0 || ttl > maxTTL {
		return code.New(code.NoFreeze, fmt.Sprintf("time to live %s is not within 0 and %s", ttl, maxTTL))
	}
	return nil
}

const maxOwner = 12 // the longest name of an owner, in bytes

// CheckOwner returns an error unless owner is a name that the frozen connections
// of one owner can be kept under: 1 to 12 lower-case letters and digits.
func CheckOwner(owner string) error {
	strange := strings.Trim(owner, "abcdefghijklmnopqrstuvwxyz0123456789")
	if owner == "" || len(owner) > maxOwner || strange != "" {
		return code.New(code.NoFreeze, fmt.Sprintf("bad owner %q (1 to 12 of a-z and 0-9)", owner))
	}
	return nil
}

// MergeConns returns the connections of both lists, each of them once, with
// their addresses as packets carry them. It returns an error if one of them
// lacks an address, or has addresses of two IP families.
func MergeConns(before, more []tcp.Tuple) ([]tcp.Tuple, error) {
	all := make([]tcp.Tuple, 0, len(before)+len(more))
	seen := make(tcp.Set, cap(all))
	for _, list := range [][]tcp.Tuple{before, more} {
		for _, t := range list {
			t = tcp.NewTuple(withoutZone(t.Local), withoutZone(t.Remote))
			if !t.Local.IsValid() || !t.Remote.IsValid() || t.Local.Addr().Is4() != t.Remote.Addr().Is4() {
				return nil, code.New(code.NoFreeze, fmt.Sprintf("cannot freeze %s: not a pair of addresses of one family", t))
			}
			if !seen.Has(t) {
				seen[t] = struct{}{}
				all = append(all, t)
			}
		}
	}
	return all, nil
}

// withoutZone takes away an address's zone, which no packet carries.
func withoutZone(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}
