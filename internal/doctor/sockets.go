// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netlinksafe"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
)

// kind is what a socket is, as its own options say.
type kind struct{ domain, typ, protocol int }

// families are those that CRIU cannot dump, with their names. It dumps AF_UNIX, AF_INET,
// AF_INET6, AF_PACKET and AF_NETLINK, and nothing else (dump_socket in its
// criu/sockets.c).
var families = map[int]string{
	unix.AF_ALG: "AF_ALG (the kernel's cryptography)", unix.AF_BLUETOOTH: "Bluetooth", unix.AF_CAN: "CAN",
	unix.AF_KEY: "AF_KEY", unix.AF_SMC: "SMC", unix.AF_TIPC: "TIPC", unix.AF_VSOCK: "vsock", unix.AF_XDP: "AF_XDP",
	unix.AF_RDS: "RDS", unix.AF_PPPOX: "PPPoX", unix.AF_KCM: "KCM", unix.AF_QIPCRTR: "QRTR",
}

// protocols are names of those of the internet that CRIU cannot dump, except on raw
// sockets (can_dump_ipproto in its criu/sk-inet.c).
var protocols = map[int]string{unix.IPPROTO_MPTCP: "MPTCP", unix.IPPROTO_SCTP: "SCTP", unix.IPPROTO_DCCP: "DCCP"}

// refused returns the name of the kind if CRIU 4.2 cannot dump it, and "" otherwise.
func (k kind) refused() string {
	switch k.domain {
	case unix.AF_UNIX, unix.AF_PACKET, unix.AF_NETLINK:
		return ""
	case unix.AF_INET, unix.AF_INET6:
	default:
		if name := families[k.domain]; name != "" {
			return name
		}
		return fmt.Sprintf("address family %d", k.domain)
	}
	if k.typ == unix.SOCK_RAW {
		return ""
	}
	switch k.protocol {
	case unix.IPPROTO_IP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return ""
	}
	if name := protocols[k.protocol]; name != "" {
		return name
	}
	return fmt.Sprintf("protocol %d", k.protocol)
}

// kindOf asks a socket what it is.
func kindOf(fd int) (k kind, err error) {
	for _, o := range []struct {
		name int
		to   *int
	}{{unix.SO_DOMAIN, &k.domain}, {unix.SO_TYPE, &k.typ}, {unix.SO_PROTOCOL, &k.protocol}} {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, o.name)
		if err != nil {
			return k, err
		}
		*o.to = v
	}
	return k, nil
}

// eachSocket calls f with a duplicate of each socket of the tree, once, however many
// tasks share it, and returns what could not be looked at.
func (s *Subject) eachSocket(f func(d descriptor, fd int, k kind)) (found []Finding) {
	seen := map[uint32]bool{}
	for _, d := range s.fds {
		inode := d.socketInode()
		if inode == 0 || seen[inode] {
			continue
		}
		seen[inode] = true
		var bad error
		err := d.with(func(fd int) {
			k, err := kindOf(fd)
			if err != nil {
				bad = err
				return
			}
			f(d, fd, k)
		})
		if err := errors.Join(bad, err); err != nil {
			found = append(found, warn(s.at(d), "run it as root of the host", "the socket cannot be looked at: %v", err))
		}
	}
	return found
}

// checkSockets looks for sockets that CRIU cannot dump, and for those that it can but
// that we do nothing for.
func checkSockets(s *Subject) []Finding {
	var found []Finding
	var udp, packet, all int
	unlooked := s.eachSocket(func(d descriptor, fd int, k kind) {
		all++
		if name := k.refused(); name != "" {
			found = append(found, fails(s.at(d), s.without(d, k), "CRIU cannot dump %s sockets%s", name, addressOf(fd)))
			return
		}
		switch {
		case k.domain == unix.AF_NETLINK && unread(fd):
			found = append(found, warn(s.at(d), "have the program read it, then dump", "a netlink socket (protocol %d) has data that the program has not read: CRIU cannot dump that", k.protocol))
		case k.domain == unix.AF_PACKET:
			packet++
			if s.set.Policy == config.Isolate {
				found = append(found, warn(s.at(d), "dump by policy hold or kill, or use nftables with Linux 5.16", "a packet socket sends past a packet filter, and by policy isolate the program goes on"))
			}
		case (k.domain == unix.AF_INET || k.domain == unix.AF_INET6) && k.typ == unix.SOCK_DGRAM:
			udp++
		}
	})
	found = append(found, unlooked...)
	found = append(found, s.externalUnix()...)
	if len(found) == 0 {
		found = append(found, ok("sockets", "%d, of kinds that CRIU can dump", all))
	}
	if udp > 0 {
		found = append(found, note("UDP", "", "%d sockets: CRIU restores them, but what arrives from the dump on until they are restored is lost, as UDP allows", udp))
	}
	if packet > 0 {
		found = append(found, note("packet sockets", "", "%d: CRIU restores them without the packets in their queues", packet))
	}
	return found
}

// without says how to do without a socket that CRIU cannot dump.
func (s *Subject) without(d descriptor, k kind) string {
	if k.protocol == unix.IPPROTO_MPTCP {
		info, err := buildinfo.ReadFile(fmt.Sprintf("/proc/%d/exe", d.task.PID))
		if err != nil {
			return "have the program make it without IPPROTO_MPTCP (Go programs: GODEBUG=multipathtcp=0 in the environment; mptcpize: run without it)"
		}
		return fmt.Sprintf("start the program (%s) with GODEBUG=multipathtcp=0 in its environment", info.GoVersion)
	}
	return "have the program close it before the dump"
}

// unread reports whether a socket has data to read.
func unread(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0 && poll[0].Revents&unix.POLLIN != 0
}

// addressOf returns the socket's own address, as ", bound to …", "" if it has none.
func addressOf(fd int) string {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return ""
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		if a.Port != 0 {
			return ", here " + hostPort(a.Addr[:], a.Port)
		}
	case *unix.SockaddrInet6:
		if a.Port != 0 {
			return ", here " + hostPort(a.Addr[:], a.Port)
		}
	case *unix.SockaddrVM:
		if a.Port != unix.VMADDR_PORT_ANY {
			return fmt.Sprintf(", here port %d", a.Port)
		}
	}
	return ""
}

// unixName returns the name of a unix socket as it is written elsewhere: an abstract one
// begins with a zero byte, for which an @ stands, and after a path there may be some.
func unixName(name string) string {
	if abstract, is := strings.CutPrefix(name, "\x00"); is {
		return "@" + abstract
	}
	path, _, _ := strings.Cut(name, "\x00")
	return path
}

// externalUnix looks for unix sockets that are connected to somebody outside of the
// tree (dump_one_unix_fd and __dump_external_socket in CRIU's criu/sk-unix.c).
func (s *Subject) externalUnix() (found []Finding) {
	own := map[uint32]descriptor{}
	for _, d := range s.fds {
		if inode := d.socketInode(); inode != 0 {
			own[inode] = d
		}
	}
	var diag []*netlink.UnixDiagInfoResp
	err := s.ns.Do(func() (err error) {
		diag, err = netlinksafe.Retry(netlink.UnixSocketDiagInfo)
		return err
	})
	if err != nil {
		return nil // without unix_diag CRIU says so itself
	}
	names := map[uint32]string{}
	for _, u := range diag {
		if u.Name != nil {
			names[u.DiagMsg.INode] = unixName(*u.Name)
		}
	}
	for _, u := range diag {
		d, ours := own[u.DiagMsg.INode]
		if !ours || u.Peer == nil || *u.Peer == 0 {
			continue
		}
		if _, inside := own[*u.Peer]; inside {
			continue
		}
		name := "a socket without a name, or in another network namespace"
		if names[*u.Peer] != "" {
			name = printable.Text(names[*u.Peer])
		}
		if u.DiagMsg.Type == unix.SOCK_DGRAM {
			found = append(found, warn(s.at(d), "dump with ext-unix-sk, or have the program close it", "a unix socket is connected to %s, outside of the tree: CRIU refuses that unless ext-unix-sk is set", name))
			continue
		}
		found = append(found, fails(s.at(d), fmt.Sprintf("have the program close it before the dump, or dump with --external 'unix[%d]'", u.DiagMsg.INode),
			"a unix connection leads to %s, outside of the tree: CRIU cannot dump one half of it", name))
	}
	return found
}
