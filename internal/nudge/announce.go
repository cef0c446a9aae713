// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netlinksafe"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
)

// announcements builds the frames that announce every address of the calling
// thread's namespace, each on the interface that has it. If the addresses do not
// stop changing, it announces those that it has seen: there is another round.
func announcements() ([]frame, error) {
	links, err := netlinksafe.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	var all []frame
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagUp == 0 || a.Flags&net.FlagLoopback != 0 || len(a.HardwareAddr) != 6 {
			continue
		}
		addrs, err := netlinksafe.AddrList(l, netlink.FAMILY_ALL)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list the addresses of %s: %w", a.Name, err)
		}
		for _, addr := range addrs {
			ip, ok := netip.AddrFromSlice(addr.IP)
			if ok && addr.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
				all = append(all, frame{a.Index, announcement(a.HardwareAddr, ip.Unmap())})
			}
		}
	}
	return all, nil
}

// EtherTypes.
const (
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
)

func ethernet(to, from net.HardwareAddr, kind uint16) []byte {
	b := make([]byte, 0, 64)
	b = append(append(b, to...), from...)
	return binary.BigEndian.AppendUint16(b, kind)
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// announcement builds the frame that announces ip.
func announcement(mac net.HardwareAddr, ip netip.Addr) []byte {
	if ip.Is4() {
		return gratuitousARP(mac, ip)
	}
	return advertisement(mac, ip)
}

// gratuitousARP builds an ARP request from ip for ip itself (RFC 826).
func gratuitousARP(mac net.HardwareAddr, ip netip.Addr) []byte {
	b := ethernet(broadcast, mac, etherARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, their lengths, request
	b = append(append(b, mac...), ip.AsSlice()...)
	b = append(append(b, 0, 0, 0, 0, 0, 0), ip.AsSlice()...)
	return b
}

// advertisement builds an unsolicited neighbor advertisement to all nodes.
func advertisement(mac net.HardwareAddr, ip netip.Addr) []byte {
	const override, targetLinkLayer = 0x20, 2
	na := append([]byte{136, 0, 0, 0, override, 0, 0, 0}, ip.AsSlice()...)
	na = append(append(na, targetLinkLayer, 1), mac...)
	return neighborDiscovery(mac, ip, [16]byte{0: 0xff, 1: 2, 15: 1}, na)
}

// solicitation builds a neighbor solicitation from ip for target (RFC 4861,
// section 4.3).
func solicitation(mac net.HardwareAddr, ip, target netip.Addr) []byte {
	const sourceLinkLayer = 1
	ns := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	ns = append(append(ns, sourceLinkLayer, 1), mac...)
	t := target.As16()
	return neighborDiscovery(mac, ip, [16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]}, ns)
}

// neighborDiscovery puts the headers before an ICMPv6 message to a multicast
// address.
func neighborDiscovery(mac net.HardwareAddr, from netip.Addr, group [16]byte, msg []byte) []byte {
	to := netip.AddrFrom16(group)
	binary.BigEndian.PutUint16(msg[2:], wire.Checksum(wire.Pseudo(from, to, wire.ICMPv6, len(msg)), msg))
	p := wire.IP(from, to, wire.ICMPv6, msg)
	p[7] = 255 // neighbors accept nothing else: it shows that no router passed it on
	return append(ethernet(net.HardwareAddr{0x33, 0x33, group[12], group[13], group[14], group[15]}, mac, etherIPv6), p...)
}
