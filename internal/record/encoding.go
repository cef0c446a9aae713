package record

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// What a record has one of for each connection is written as one string: it is
// read by commands that somebody waits for, and as JSON's own lists and objects
// 10,000 connections take ten times as long.

// Conns are connections, written as "LOCAL REMOTE LOCAL REMOTE …".
type Conns []tcp.Tuple

// MarshalText implements encoding.TextMarshaler.
func (c Conns) MarshalText() ([]byte, error) {
	var b []byte
	for _, t := range c {
		b = t.Local.AppendTo(b)
		b = append(b, ' ')
		b = t.Remote.AppendTo(b)
		b = append(b, ' ')
	}
	return b, nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Conns) UnmarshalText(text []byte) error {
	words := strings.Fields(string(text))
	if len(words)%2 != 0 {
		return fmt.Errorf("%d addresses are no pairs", len(words))
	}
	*c = make(Conns, 0, len(words)/2)
	for pair := range slices.Chunk(words, 2) {
		var t tcp.Tuple
		var err error
		if t.Local, err = netip.ParseAddrPort(pair[0]); err != nil {
			return err
		}
		if t.Remote, err = netip.ParseAddrPort(pair[1]); err != nil {
			return err
		}
		*c = append(*c, t)
	}
	return nil
}

// Reuse is tcp.Reuse, written as the inodes that had the option.
type Reuse tcp.Reuse

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
	*r = make(Reuse, len(words))
	for _, w := range words {
		inode, err := strconv.ParseUint(w, 10, 32)
		if err != nil {
			return err
		}
		(*r)[uint32(inode)] = true
	}
	return nil
}
