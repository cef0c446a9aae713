// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// kind says who sends on a connection, and when.
type kind uint8

const (
	push   kind = iota // the server sends a record every interval
	pull               // the client does
	reqrep             // the client sends a record and waits for the server's
	bulk               // both send a record every interval

	udp kind = stats.KindUDP // like reqrep in datagrams, but without waiting
)

var kindNames = []string{"push", "pull", "reqrep", "bulk", "udp"}

// side is one end of a connection.
type side uint8

const (
	client side = iota
	server
)

// sends reports whether a side sends anything after the greeting.
func (k kind) sends(s side) bool {
	switch k {
	case push:
		return s == server
	case pull:
		return s == client
	default:
		return true
	}
}

// flow is what both sides have to know about a connection.
type flow struct {
	id       uint16
	kind     kind
	half     bool          // the side that sends nothing closes its half at once
	nap      bool          // nothing is sent while the sender's program naps
	slow     bool          // the receiver takes its time, so that all buffers are full
	size     uint32        // of a record in bytes, a multiple of wordLen
	interval time.Duration // between two records
}

// The defaults of a flow's options.
var (
	defaultSize     = map[kind]uint32{push: 128, pull: 128, reqrep: 64, bulk: 32 << 10, udp: 64}
	defaultInterval = map[kind]time.Duration{
		push: time.Millisecond, pull: time.Millisecond, reqrep: time.Millisecond,
		bulk: 20 * time.Millisecond, udp: 5 * time.Millisecond,
	}
)

// parseFlow reads KIND[=N][,size=BYTES][,interval=D][,half][,nap][,slow]; n is N or 1.
func parseFlow(spec string) (f flow, n int, err error) {
	head, rest, _ := strings.Cut(spec, ",")
	name, count, counted := strings.Cut(head, "=")
	n = 1
	if counted {
		if n, err = strconv.Atoi(count); err != nil || n < 1 {
			return flow{}, 0, fmt.Errorf("connection %q: %q is not a number of connections", spec, count)
		}
	}
	found := false
	for k, kn := range kindNames {
		if kn == name {
			f.kind, found = kind(k), true
		}
	}
	if !found {
		return flow{}, 0, fmt.Errorf("connection %q: %q is not one of %s", spec, name, strings.Join(kindNames, ", "))
	}
	f.size, f.interval = defaultSize[f.kind], defaultInterval[f.kind]
	for _, option := range strings.FieldsFunc(rest, func(r rune) bool { return r == ',' }) {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "half":
			f.half = true
		case "nap":
			f.nap = true
		case "slow":
			f.slow = true
		case "size":
			var size uint64
			size, err = strconv.ParseUint(value, 10, 24)
			f.size = uint32(size)
		case "interval":
			f.interval, err = time.ParseDuration(value)
		default:
			err = errors.New("no such option")
		}
		if err != nil {
			return flow{}, 0, fmt.Errorf("connection %q: %s: %w", spec, option, err)
		}
	}
	return f, n, f.check()
}

func (f flow) check() error {
	switch {
	case int(f.kind) >= len(kindNames):
		return fmt.Errorf("kind %d is not known", f.kind)
	case f.size == 0 || f.size%wordLen != 0:
		return fmt.Errorf("the size of a record, %d bytes, is not a positive multiple of %d", f.size, wordLen)
	case f.interval <= 0:
		return fmt.Errorf("the interval %s is not positive", f.interval)
	case f.half && f.kind != push && f.kind != pull:
		return fmt.Errorf("half is not possible for %s, of which both sides send", kindNames[f.kind])
	}
	return nil
}

// greetingLen is the length of the greeting, which the client sends first on every
// connection: the flow, in network byte order.
const greetingLen = 24

const greetingMagic = 0x6e667472

// The flags of a greeting.
const (
	flagHalf = 1 << iota
	flagNap
	flagSlow
)

func (f flow) greeting() []byte {
	b := make([]byte, 0, greetingLen)
	b = binary.BigEndian.AppendUint32(b, greetingMagic)
	b = binary.BigEndian.AppendUint16(b, f.id)
	flags := byte(0)
	if f.half {
		flags |= flagHalf
	}
	if f.nap {
		flags |= flagNap
	}
	if f.slow {
		flags |= flagSlow
	}
	b = append(b, byte(f.kind), flags)
	b = binary.BigEndian.AppendUint32(b, f.size)
	b = binary.BigEndian.AppendUint32(b, 0)
	return binary.BigEndian.AppendUint64(b, uint64(f.interval))
}

func parseGreeting(b []byte) (flow, error) {
	if len(b) != greetingLen || binary.BigEndian.Uint32(b) != greetingMagic {
		return flow{}, errors.New("not a greeting of this program")
	}
	f := flow{
		id:       binary.BigEndian.Uint16(b[4:]),
		kind:     kind(b[6]),
		half:     b[7]&flagHalf != 0,
		nap:      b[7]&flagNap != 0,
		slow:     b[7]&flagSlow != 0,
		size:     binary.BigEndian.Uint32(b[8:]),
		interval: time.Duration(binary.BigEndian.Uint64(b[16:])),
	}
	return f, f.check()
}
