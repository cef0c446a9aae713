// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// findNetNS finds the namespace that a restore goes into, before CRIU has
// opened it, and says through what it was found. The namespace is nil where it
// cannot be known yet; post-setup-namespaces tells then.
func findNetNS(criu proc.Ref, cp *criuimg.Checkpoint, c *container.Container) (*netns.Namespace, string, error) {
	args := proc.Cmdline(criu.PID)
	if path := joinNS(args); path != "" {
		ns, err := openJoined(criu, path)
		return ns, "--join-ns", err
	}
	switch cp.NetNS {
	case criuimg.Shared:
		if err := mayShare(criu, c); err != nil {
			return nil, "", err
		}
		ns, err := netns.OpenPID(criu.PID, criu.Start)
		return ns, "CRIU's own namespace", err
	case criuimg.Dumped:
		return nil, "CRIU makes it from the images", nil
	}
	if c != nil && c.NetNSPath != "" {
		ns, err := netns.OpenPath(c.NetNSPath)
		return ns, "the bundle " + c.Bundle, err
	}
	if fd := inheritedFD(args, cp.ExtKey); fd != "" {
		if ns, err := netns.OpenPath(fmt.Sprintf("/proc/%d/fd/%s", criu.PID, fd)); err == nil {
			return ns, "--inherit-fd", nil
		}
	}
	return passedDown(criu, cp.ExtKey)
}

// mayShare refuses images that say that the tree had CRIU's own network namespace,
// which is the host's, where the container is to have one of its own. Images can come
// from anywhere; what a container gets is decided by its bundle. Otherwise an image
// would choose which of the host's connections are frozen.
func mayShare(criu proc.Ref, c *container.Container) error {
	if c == nil {
		// Was it no runtime that started CRIU, or could its bundle not be read?
		if _, err := container.Runtime(criu.PID); err != nil {
			return fmt.Errorf("the images are of a tree in the host's network namespace, and it cannot be told whether the container is to have one of its own: %w", err)
		}
		return nil
	}
	if c.HasNetNS {
		return code.New(code.HostTree, fmt.Sprintf("the images are of a tree in the host's network namespace, but container %s is to have one of its own (%s/config.json): "+
			"restore it into a container that shares the host's, or dump it from one that does not", c.ID, c.Bundle))
	}
	return nil
}

// connsOf returns those of the connections whose local address was seen to be one of
// the namespace's.
func connsOf(ns *netns.Namespace, conns []tcp.Tuple) ([]tcp.Tuple, error) {
	own, err := ns.Addresses()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // what was seen is there
		return nil, err
	}
	var of []tcp.Tuple
	for _, c := range conns {
		if own[c.Local.Addr()] {
			of = append(of, c)
		}
	}
	return of, nil
}

// connsThrough returns those of another namespace's connections that host can only
// route: their local address is not an address of host. Connections of its own may
// have the same addresses and ports as what an image tells of.
func connsThrough(host *netns.Namespace, conns []tcp.Tuple) ([]tcp.Tuple, error) {
	locals := map[netip.Addr]bool{}
	for _, c := range conns {
		locals[c.Local.Addr()] = true
	}
	foreign, err := host.Foreign(slices.Collect(maps.Keys(locals)))
	if err != nil {
		return nil, err
	}
	clear(locals)
	for _, a := range foreign {
		locals[a] = !a.IsLinkLocalUnicast() // those are not routed
	}
	var through []tcp.Tuple
	for _, c := range conns {
		if locals[c.Local.Addr()] {
			through = append(through, c)
		}
	}
	return through, nil
}

// passedDown looks for namespaces that CRIU, or the process that started it,
// holds open: one of them was handed over. Only if there is exactly one beside
// their own can it be told which.
func passedDown(criu proc.Ref, key string) (*netns.Namespace, string, error) {
	pids := []int{criu.PID}
	if st, err := proc.ReadStat(criu.PID); err == nil {
		pids = append(pids, st.PPID)
	}
	known := map[netns.ID]bool{} // not to be taken, or found already
	for _, pid := range append([]int{1}, pids...) {
		if ns, err := netns.OpenPath(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil {
			known[ns.ID()] = true
			_ = ns.Close()
		}
	}
	var found []*netns.Namespace
	for _, pid := range pids {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if !isNSFS(fd) {
				continue
			}
			ns, err := netns.OpenPath(fd)
			if err != nil {
				continue // a namespace of another type
			}
			if known[ns.ID()] {
				_ = ns.Close()
				continue
			}
			known[ns.ID()] = true
			found = append(found, ns)
		}
	}
	if len(found) == 1 {
		return found[0], "what the caller holds open", nil
	}
	for _, ns := range found {
		_ = ns.Close()
	}
	return nil, fmt.Sprintf("the caller hands it over as %q, and %d namespaces are open there", key, len(found)), nil
}

// isNSFS reports whether a file is a namespace, without opening it: what other
// processes have open may be anything.
func isNSFS(path string) bool {
	var file, own unix.Stat_t
	return unix.Stat(path, &file) == nil && unix.Stat("/proc/self/ns/net", &own) == nil && file.Dev == own.Dev
}

// joinNS returns the value of --join-ns net:VALUE, or "".
func joinNS(args []string) string {
	for _, v := range values(args, "--join-ns", "-J") {
		if path, ok := strings.CutPrefix(v, "net:"); ok {
			return path
		}
	}
	return ""
}

// openJoined opens what --join-ns names: a pid or a path, which is relative to
// CRIU's working directory.
func openJoined(criu proc.Ref, value string) (*netns.Namespace, error) {
	if strings.Trim(value, "0123456789") == "" {
		return netns.OpenPath("/proc/" + value + "/ns/net")
	}
	if !filepath.IsAbs(value) {
		value = fmt.Sprintf("/proc/%d/cwd/%s", criu.PID, value)
	}
	return netns.OpenPath(value)
}

// inheritedFD returns N of --inherit-fd fd[N]:KEY for this key, or "".
func inheritedFD(args []string, key string) string {
	for _, v := range values(args, "--inherit-fd") {
		fd, k, ok := strings.Cut(v, "]:")
		n, isFD := strings.CutPrefix(fd, "fd[")
		if ok && isFD && k == key && n != "" && strings.Trim(n, "0123456789") == "" {
			return n
		}
	}
	return ""
}

// values returns the values of an option, given as "--name value" or
// "--name=value".
func values(args []string, names ...string) []string {
	var vals []string
	for i, arg := range args {
		if name, v, ok := strings.Cut(arg, "="); ok && slices.Contains(names, name) {
			vals = append(vals, v)
		} else if slices.Contains(names, arg) && i+1 < len(args) {
			vals = append(vals, args[i+1])
		}
	}
	return vals
}
