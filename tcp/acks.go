package tcp

import (
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/proc"
)

// FlushAcks has the kernel send at once the acknowledgements that it delays, for
// the first limit sockets of a stopped tree. So the peers know exactly what was
// received before a freeze drops what comes later; a nudge after it can then
// name the byte that they wait for. A socket's habit of delaying is left as it
// was (an even value of TCP_QUICKACK, __tcp_sock_set_quickack in
// net/ipv4/tcp.c). Where data waits to be read the kernel goes on delaying.
// Nothing depends on it, so errors are ignored.
func FlushAcks(tree proc.Tree, limit int) {
	const onceAndBack = 2
	n := 0
	for _, p := range tree {
		fds, err := sockets(p)
		if err != nil {
			continue
		}
		for fd := range fds {
			if n++; n > limit {
				return
			}
			_ = withDup(p, fd, func(dup int) error {
				return unix.SetsockoptInt(dup, unix.IPPROTO_TCP, unix.TCP_QUICKACK, onceAndBack)
			})
		}
	}
}
