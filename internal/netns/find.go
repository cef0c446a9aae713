// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrGone says that there is no network namespace with the given identity any more.
var ErrGone = errors.New("no such network namespace any more")

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
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var points []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if point, ok := nsfsMount(lines.Text()); ok {
			points = append(points, point)
		}
	}
	return points, lines.Err()
}

// nsfsMount returns the mount point in a line of mountinfo (proc_pid_mountinfo(5)),
// and false if the line is not about a network namespace. Its fields 4 and 5 are the root
// within the file system, here net:[INO], and the mount point; the type of the
// file system follows a lone hyphen.
func nsfsMount(line string) (string, bool) {
	mount, rest, ok := strings.Cut(line, " - ")
	if !ok || !strings.HasPrefix(rest, "nsfs ") {
		return "", false
	}
	fields := strings.Fields(mount)
	if len(fields) < 5 || !strings.HasPrefix(fields[3], "net:[") {
		return "", false
	}
	return unescape(fields[4]), true
}

// unescape replaces the octal escapes (\040 for a space) of /proc's mount tables.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
