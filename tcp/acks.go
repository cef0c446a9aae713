package tcp

import (
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/proc"
)

// FlushAcks has the kernel send at once the acknowledgements that it delays, for
// the sockets among the first limit descriptors of each task of a stopped tree,
// and of the first limit tasks. So the peers know exactly what was received
// before a freeze drops what comes later; a nudge after it can then name the
// byte that they wait for. A socket's habit of delaying is left as it was (an
// even value of TCP_QUICKACK, __tcp_sock_set_quickack in net/ipv4/tcp.c). Where
// data waits to be read the kernel goes on delaying. Nothing depends on it, so
// errors are ignored. What it costs does not grow with the tree: the tasks wait
// meanwhile.
func FlushAcks(tree proc.Tree, limit int) {
	const onceAndBack = 2
	for _, p := range tree {
		fds, err := sockets(p, limit)
		if err != nil {
			continue
		}
		for _, d := range fds {
			_ = d.with(func(fd int, _ uint32) error {
				if !isTCP(fd) {
					return nil
				}
				return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, onceAndBack)
			})
		}
		if limit -= len(fds) + 1; limit <= 0 {
			return
		}
	}
}
