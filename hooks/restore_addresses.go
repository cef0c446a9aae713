// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"net/netip"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// missingAddresses returns the local addresses of the connections to come that
// are not there.
func missingAddresses(ns *netns.Namespace, conns []tcp.Tuple) ([]netip.Addr, error) {
	addrs := make([]netip.Addr, len(conns))
	for i, c := range conns {
		addrs[i] = c.Local.Addr()
	}
	return ns.Missing(addrs)
}
