// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// pollStep is the time between two looks at something that may pass.
const pollStep = 5 * time.Millisecond

// hostPort prints an address with its port.
func hostPort(ip []byte, port int) string {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), uint16(port)).String()
}

// pending is what waits at the tree's listening sockets.
type pending struct {
	queues map[uint32]tcp.Socket // by inode: those that have connections to accept
	half   []tcp.Socket          // handshakes that are not complete
}

// waiting finds out what waits at the tree's listening sockets now.
func (s *Subject) waiting(own map[uint32]descriptor) (pending, error) {
	p := pending{queues: map[uint32]tcp.Socket{}}
	socks, err := netns.In(s.ns, tcp.List)
	for _, k := range socks {
		_, ours := own[k.Inode]
		switch {
		case k.State == tcp.Listen && ours && k.Backlog > 0:
			p.queues[k.Inode] = k
		case k.State == tcp.SynRecv || k.State == tcp.NewSynRecv:
			p.half = append(p.half, k)
		}
	}
	return p, err
}

// checkHandshakes looks whether connections wait to be accepted for longer than a dump
// waits (drain in netfreeze.toml), since CRIU refuses a listening socket then
// (can_dump_inet_sk in its criu/sk-inet.c).
func checkHandshakes(s *Subject) (found []Finding) {
	own := map[uint32]descriptor{}
	for _, d := range s.fds {
		if inode := d.socketInode(); inode != 0 {
			own[inode] = d
		}
	}
	drain := max(s.set.Drain, config.Default().Drain)
	left, err := s.waiting(own)
	for deadline := time.Now().Add(drain); err == nil && len(left.queues)+len(left.half) > 0 && time.Now().Before(deadline); {
		time.Sleep(pollStep)
		var now pending
		now, err = s.waiting(own)
		for inode := range left.queues {
			if _, still := now.queues[inode]; !still {
				delete(left.queues, inode)
			}
		}
		left.half = slices.DeleteFunc(left.half, func(k tcp.Socket) bool {
			return !slices.ContainsFunc(now.half, func(o tcp.Socket) bool { return o.Tuple == k.Tuple })
		})
	}
	if err != nil {
		return []Finding{warn(s.ns.ID().String(), "", "handshakes in flight cannot be told: %v", err)}
	}
	for inode, k := range left.queues {
		found = append(found, fails(s.at(own[inode]), "have the program accept them, raise drain in netfreeze.toml if it is only slow, or let CRIU drop them (skip-in-flight)",
			"%d connections to %s have waited to be accepted for all of %s: CRIU refuses to dump the socket", k.Backlog, k.Local, config.FormatDuration(drain)))
	}
	if len(left.half) > 0 {
		found = append(found, warn(left.half[0].Local.String(), "wait until they are over",
			"%d handshakes are in flight for all of %s, the first with %s: these connections are lost in a dump, and it fails if one completes meanwhile", len(left.half), config.FormatDuration(drain), left.half[0].Remote))
	}
	if len(found) == 0 {
		return []Finding{ok("handshakes", "none is in flight")}
	}
	return found
}

// checkNetwork says how much is frozen, with whom the namespace is shared, and which
// addresses the restored container needs.
func checkNetwork(s *Subject) (found []Finding) {
	if s.shared {
		found = append(found, note(s.ns.ID().String(), "", "it is the host's network namespace: only the tree's own connections are frozen (scope connections)"))
	} else if others := s.others(); len(others) > 0 {
		found = append(found, note(s.ns.ID().String(), "", "%d other processes live in it and are cut off with the tree while it is frozen: %s", len(others), strings.Join(firstFew(others), ", ")))
	}
	if shares(s.root()) {
		found = append(found, note(s.name(s.root().PID), "", "its pid namespace belongs to somebody else, as in a pod with shareProcessNamespace: the restore needs one in which its pids are free"))
	}
	addrs, err := s.ns.Addresses()
	if err != nil {
		found = append(found, warn(s.ns.ID().String(), "", "%v", err))
	}
	var needed []string
	for a := range addrs {
		if !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			needed = append(needed, a.String())
		}
	}
	if len(needed) > 0 && !s.shared {
		slices.Sort(needed)
		found = append(found, note(strings.Join(firstFew(needed), ", "), s.keepsAddress(), "a restore elsewhere needs the same addresses there"))
	}
	if len(found) == 0 {
		return []Finding{ok(s.ns.ID().String(), "the whole namespace is frozen, and nobody else is in it")}
	}
	return found
}

// few is how many names a message lists.
const few = 4

func firstFew(names []string) []string {
	if len(names) > few {
		return append(slices.Clone(names[:few]), "…")
	}
	return names
}

// others names the processes in the namespace that are not of the tree.
func (s *Subject) others() (names []string) {
	roots, err := Roots(s.ns)
	if err != nil {
		return nil
	}
	for _, r := range roots {
		if _, ours := s.comm[r.PID]; ours || r.PID == os.Getpid() {
			continue
		}
		st, err := proc.ReadStat(r.PID)
		if err == nil {
			names = append(names, fmt.Sprintf("pid %d (%s)", r.PID, st.Comm))
		}
	}
	return names
}

// shares reports whether a process is in a pid namespace below ours of which it is not
// the first process.
func shares(p *proc.Process) bool {
	own, err := os.Readlink("/proc/self/ns/pid")
	its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.PID))
	return err == nil && err2 == nil && own != its && !proc.IsInit(p.PID)
}

// keepsAddress says what gives a restored container its old address, by who made it.
func (s *Subject) keepsAddress() string {
	switch c := s.container; {
	case c.Pod != "":
		return "a new pod gets another address unless the network plugin is asked for this one: docs/kubernetes.md"
	case c.Annotations["io.podman.annotations.autoremove"] != "" || c.Annotations["io.container.manager"] == "libpod":
		return "podman keeps it only if it was chosen: run with --ip and --mac-address (docs/podman.md)"
	}
	return "give the new namespace the same addresses before the restore: docs/callers.md"
}
