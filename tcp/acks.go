package tcp

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/proc"
)

// FlushAcks has the kernel send at once the acknowledgements that it delays, for
// the sockets among the first limit descriptors of a stopped tree. So the peers
// know exactly what was received before a freeze drops what comes later; a
// nudge after it can then name the byte that they wait for. A socket's habit of
// delaying is left as it was (an even value of TCP_QUICKACK,
// __tcp_sock_set_quickack in net/ipv4/tcp.c). Where data waits to be read the
// kernel goes on delaying. Nothing depends on it, so errors are ignored. What it
// costs does not grow with the tree: the tasks wait meanwhile.
func FlushAcks(tree proc.Tree, limit int) {
	const onceAndBack = 2
	for _, p := range tree {
		for _, fd := range firstFDs(p, limit) {
			limit--
			_ = withDup(p, fd, func(dup int) error {
				return unix.SetsockoptInt(dup, unix.IPPROTO_TCP, unix.TCP_QUICKACK, onceAndBack)
			})
		}
		if limit <= 0 {
			return
		}
	}
}

// firstFDs returns at most limit open descriptors of a process.
func firstFDs(p *proc.Process, limit int) []int {
	d, err := os.Open(fmt.Sprintf("/proc/%d/fd", p.PID))
	if err != nil || limit <= 0 {
		return nil
	}
	defer d.Close() //nolint:errcheck // opened for reading
	names, _ := d.Readdirnames(limit)
	fds := make([]int, 0, len(names))
	for _, n := range names {
		if fd, err := strconv.Atoi(n); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}
