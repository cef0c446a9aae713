// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// wordLen is the length in bytes of a word, the unit that says where it belongs:
// 16 bits for connection and direction, then 48 bits that count the words from 0.
const wordLen = 8

const seqMask = 1<<48 - 1

// tag is what the words of one direction have in common.
func tag(id uint16, from side) uint64 {
	return (uint64(id)<<1 | uint64(from)) << 48
}

// fill writes whole words, from word number seq on, and returns the next number.
func fill(b []byte, tag, seq uint64) uint64 {
	for i := 0; i < len(b); i += wordLen {
		binary.BigEndian.PutUint64(b[i:], tag|seq&seqMask)
		seq++
	}
	return seq
}

// maxComplaints is how many mismatches of one direction are logged; the counters
// include all of them.
const maxComplaints = 20

// checker compares the received bytes of one direction with what they must be.
type checker struct {
	tag        uint64
	next       uint64 // number of the word that must come next
	part       [wordLen]byte
	partLen    int
	stats      *stats.Conn
	complain   func(error)
	complaints int
}

// feed takes received bytes, in pieces of any length.
func (c *checker) feed(b []byte) {
	if c.partLen > 0 {
		n := copy(c.part[c.partLen:], b)
		c.partLen += n
		b = b[n:]
		if c.partLen < wordLen {
			return
		}
		c.word(binary.BigEndian.Uint64(c.part[:]))
		c.partLen = 0
	}
	for ; len(b) >= wordLen; b = b[wordLen:] {
		c.word(binary.BigEndian.Uint64(b))
	}
	c.partLen = copy(c.part[:], b)
}

func (c *checker) word(w uint64) {
	want := c.tag | c.next&seqMask
	if w == want {
		c.next++
		return
	}
	got := w & seqMask
	switch {
	case w&^uint64(seqMask) != c.tag:
		c.stats.Spoil(wordLen)
		c.grumble("word %d is %#016x, should be %#016x", c.next, w, want)
		c.next++
	case got > c.next:
		c.stats.Lose((got - c.next) * wordLen)
		c.grumble("words %d to %d are missing", c.next, got-1)
		c.next = got + 1
	default:
		c.stats.Double(wordLen)
		c.grumble("word %d came again, should be %d", got, c.next)
	}
}

func (c *checker) grumble(format string, args ...any) {
	if c.complaints++; c.complaints <= maxComplaints {
		c.complain(fmt.Errorf(format, args...))
	}
}
