// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// nic is the number of the stack's only interface.
const nic = 1

// newStack creates a gVisor stack on an interface of the kernel, with the options
// that gVisor's own sandboxes use.
func newStack(name string, addrs []netip.Prefix) (*stack.Stack, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	fd, err := packetSocket(link.Index)
	if err != nil {
		return nil, fmt.Errorf("packet socket on %s: %w", name, err)
	}
	ep, err := fdbased.New(&fdbased.Options{
		FDs: []int{fd}, MTU: uint32(link.MTU),
		EthernetHeader: true, Address: tcpip.LinkAddress(link.HardwareAddr),
		PacketDispatchMode: fdbased.RecvMMsg,
		RXChecksumOffload:  true, // checksums are not filled in between two namespaces
	})
	if err != nil {
		return nil, fmt.Errorf("link endpoint on %s: %w", name, err)
	}
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &moderate} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return nil, fmt.Errorf("set %T: %s", option, err)
		}
	}
	if err := s.CreateNIC(nic, ep); err != nil {
		return nil, fmt.Errorf("use %s: %s", name, err)
	}
	for _, a := range addrs {
		addr := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(a.Addr().AsSlice()), PrefixLen: a.Bits()}
		err := s.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: protocol(a.Addr()), AddressWithPrefix: addr}, stack.AddressProperties{})
		if err != nil {
			return nil, fmt.Errorf("add %s to %s: %s", a, name, err)
		}
		s.AddRoute(tcpip.Route{Destination: addr.Subnet(), NIC: nic})
	}
	return s, nil
}

// protocol returns gVisor's number for the network protocol of an address.
func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

// packetSocket opens a socket that receives whole frames from an interface.
func packetSocket(index int) (int, error) {
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
}
