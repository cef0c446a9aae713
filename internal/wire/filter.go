// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Direction says which packets a filter is about, as the tapped namespace sees them.
type Direction int

const (
	// Arriving packets are for a local port.
	Arriving Direction = iota
	// Leaving packets come from a local port.
	Leaving
)

// headersLen is how much of a packet is copied, in bytes: the longest IPv4 header and the
// longest TCP header. IPv6 has 40 bytes, and extensions are not followed (see Parse).
const headersLen = 60 + 60

// maxRanges is how many ranges of ports a filter looks at, one after the other, so that it
// stays far below BPF_MAXINSNS (4096 instructions, linux/bpf_common.h) and costs packets
// of others little. What further ports there are share a range with their neighbours.
const maxRanges = 64

// TapPorts is Tap for the headers of TCP segments that arrive for, or leave from, the
// given local ports, and perhaps some more: the kernel copies nothing else, in particular
// no data. Without a port it reads nothing.
func TapPorts(d Direction, ports []uint16) (*os.File, error) {
	program, err := portFilter(d, ports)
	if err != nil {
		return nil, fmt.Errorf("assemble a packet filter: %w", err)
	}
	// Nothing comes before the socket is bound to a protocol, which the filter precedes.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	code := make([]unix.SockFilter, len(program))
	for i, in := range program {
		code[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}) // at most maxRanges of them
	if err == nil && d == Arriving {
		// Otherwise the kernel clones all that leaves, just for the filter to refuse it. It
		// does that before Linux 4.20, which lacks the option.
		_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL)})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set a packet socket up: %w", err)
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}

// packetOutgoing is PACKET_OUTGOING (linux/if_packet.h).
const packetOutgoing = 4

// portFilter returns the program for TapPorts. It returns how many bytes of a packet are
// to be copied, 0 for none.
func portFilter(d Direction, ports []uint16) ([]bpf.RawInstruction, error) {
	wrongWay := bpf.JumpIf{Cond: bpf.JumpEqual, Val: packetOutgoing, SkipFalse: 1}
	if d == Leaving {
		wrongWay.Cond = bpf.JumpNotEqual
	}
	way := []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtType}, wrongWay, bpf.RetConstant{Val: 0}}
	return bpf.Assemble(append(way, portProgram(d, ports)...))
}

// Offsets in the headers, in bytes (RFC 791, RFC 8200 and RFC 9293).
const (
	ip4Fragment, ip4Proto = 6, 9
	ip6Next               = 6
	sourcePort, destPort  = 0, 2
	fragmentOffset        = 0x1fff // in the 16 bits at ip4Fragment
)

// portProgram is portFilter for packets of one direction, where d says which of their
// ports is the local one.
func portProgram(d Direction, ports []uint16) []bpf.Instruction {
	port := uint32(destPort)
	if d == Leaving {
		port = sourcePort
	}
	drop := bpf.RetConstant{Val: 0}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipTrue: 10},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 4, SkipTrue: 1},
		drop,
		bpf.LoadAbsolute{Off: ip4Proto, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: TCP, SkipTrue: 2},
		bpf.LoadAbsolute{Off: ip4Fragment, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: fragmentOffset, SkipFalse: 1},
		drop, // a fragment, but not the first
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: port, Size: 2},
		bpf.Jump{Skip: 4},
		bpf.LoadAbsolute{Off: ip6Next, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: TCP, SkipTrue: 1},
		drop,
		bpf.LoadAbsolute{Off: ip6Len + port, Size: 2},
	}
	for _, r := range ranges(ports, maxRanges) {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(r.low), SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(r.high), SkipTrue: 1},
			bpf.RetConstant{Val: headersLen})
	}
	return append(program, drop)
}

// portRange is all ports from low to high.
type portRange struct{ low, high uint16 }

// ranges returns at most limit ranges that contain all ports, and as few others as
// possible: what lies between two ranges that become one is the shortest gap.
func ranges(ports []uint16, limit int) (all []portRange) {
	sorted := slices.Compact(slices.Sorted(slices.Values(ports)))
	gaps := make([]int, 0, len(sorted))
	for i := 1; i < len(sorted); i++ {
		gaps = append(gaps, int(sorted[i])-int(sorted[i-1]))
	}
	slices.Sort(gaps)
	bridged := 1 // the longest gap that is bridged; next to each other is no gap
	if n := len(gaps) - limit; n >= 0 {
		bridged = gaps[n]
	}
	for _, p := range sorted {
		if n := len(all); n > 0 && int(p)-int(all[n-1].high) <= bridged {
			all[n-1].high = p
			continue
		}
		all = append(all, portRange{p, p})
	}
	return all
}
