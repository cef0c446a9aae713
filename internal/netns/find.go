// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// ErrGone says that there is no network namespace with the given identity any more.
var ErrGone = code.New(code.NetNSGone, "no such network namespace any more")

// namedDir is where iproute2 and most CNI set-ups bind-mount namespaces.
const namedDir = "/run/netns"

// Find opens the network namespace with the given identity. It looks at the nsfs
// mounts of this mount namespace, at the files in /run/netns and at every process.
// The error wraps [ErrGone] if none of these leads to it: a namespace that only an
// open file descriptor or a socket keeps alive is not found.
func Find(id ID) (*Namespace, error) {
	for _, path := range append([]string{Mounted(id)}, candidates()...) {
		// A path that leads nowhere (the process has ended meanwhile, the file is
		// empty) does not lead to the namespace.
		if got, err := statID(path); err != nil || got != id {
			continue
		}
		n, err := OpenPath(path)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", id, err)
		}
		if n.id == id {
			return n, nil
		}
		_ = n.Close() // the path leads to another one by now
	}
	return nil, fmt.Errorf("find %s: %w", id, ErrGone)
}

// candidates returns paths to all network namespaces that have a name in /run/netns
// or a process.
func candidates() []string {
	var paths []string
	for _, pattern := range []string{namedDir + "/*", "/proc/[0-9]*/ns/net"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			panic(err) // the patterns are constants
		}
		paths = append(paths, found...)
	}
	return paths
}

// nsfsMounts returns the mount points of network namespaces.
func nsfsMounts() ([]string, error) {
	mountinfo, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	var points []string
	for line := range strings.Lines(string(mountinfo)) {
		if point, ok := nsfsMount(line); ok {
			points = append(points, point)
		}
	}
	return points, nil
}

// nsfsMount returns the mount point in a line of mountinfo, and false if the line is
// not about a network namespace, the root of whose mount is net:[INODE].
func nsfsMount(line string) (string, bool) {
	m, ok := proc.ParseMount(line)
	if !ok || m.Type != "nsfs" || !strings.HasPrefix(m.Root, "net:[") {
		return "", false
	}
	return m.Point, true
}
