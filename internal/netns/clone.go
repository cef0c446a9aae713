// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Clone opens the same namespace once more, for somebody who uses it longer than
// the owner of n: closing either handle leaves the other one open.
func (n *Namespace) Clone() (*Namespace, error) {
	fd, err := unix.FcntlInt(uintptr(n.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("open %s once more: %w", n, err)
	}
	return adopt(vnetns.NsHandle(fd), n.origin)
}
