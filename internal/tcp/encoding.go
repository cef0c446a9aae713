// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// What there is one of for each connection is encoded as a single string: it is
// read by commands that somebody waits for, and as JSON's own lists and objects
// 10,000 connections take ten times as long.

// Tuples are connections that can be written to a file, as
// "LOCAL REMOTE LOCAL REMOTE …".
type Tuples []Tuple

// MarshalText implements encoding.TextMarshaler.
func (ts Tuples) MarshalText() ([]byte, error) {
	var b []byte
	for _, t := range ts {
		b = t.Local.AppendTo(b)
		b = append(b, ' ')
		b = t.Remote.AppendTo(b)
		b = append(b, ' ')
	}
	return b, nil
}

// UnmarshalText implements encoding.TextUnmarshaler. It fails on anything that
// MarshalText would not write.
func (ts *Tuples) UnmarshalText(text []byte) error {
	words := strings.Fields(string(text))
	if len(words)%2 != 0 {
		return code.New(code.Record, fmt.Sprintf("read connections: %d addresses do not make pairs", len(words)))
	}
	read := make(Tuples, 0, len(words)/2)
	for pair := range slices.Chunk(words, 2) {
		local, err := netip.ParseAddrPort(pair[0])
		if err != nil {
			return fmt.Errorf("read connections: %w", err)
		}
		remote, err := netip.ParseAddrPort(pair[1])
		if err != nil {
			return fmt.Errorf("read connections: %w", err)
		}
		read = append(read, NewTuple(local, remote))
	}
	*ts = read
	return nil
}

// Reuse remembers which sockets had SO_REUSEADDR, by socket inode: switching
// TCP_REPAIR on and off overwrites it (tcp_setsockopt in net/ipv4/tcp.c). It is
// written to a file as the inodes that had the option.
type Reuse map[uint32]bool

// MarshalText implements encoding.TextMarshaler.
func (r Reuse) MarshalText() ([]byte, error) {
	var b []byte
	for _, inode := range slices.Sorted(maps.Keys(r)) {
		if r[inode] {
			b = strconv.AppendUint(b, uint64(inode), 10)
			b = append(b, ' ')
		}
	}
	return b, nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Reuse) UnmarshalText(text []byte) error {
	words := strings.Fields(string(text))
	read := make(Reuse, len(words))
	for _, w := range words {
		inode, err := strconv.ParseUint(w, 10, 32)
		if err != nil {
			return fmt.Errorf("read socket inodes: %w", err)
		}
		read[uint32(inode)] = true
	}
	*r = read
	return nil
}
