// SPDX-License-Identifier: Apache-2.0

// Package stats reads and writes the file in which a traffic program shows its
// counters, while it runs and after it has ended: a fixed array in shared memory.
// The program writes nothing else while its connections are healthy, so that no
// open file's size or position changes between dump and restore.
package stats

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// magic is at the beginning of every file; it changes with the layout.
const magic = 0x6e66_7374_6174_0001

// MaxConns is the number of connections that one file has room for.
const MaxConns = 1024

// State is the state of a connection.
type State uint64

// The states of a connection.
const (
	Unused      State = iota // the slot belongs to no connection
	Opening                  // the client is still dialling
	Established              // established, in at least one direction
	Closed                   // ended as intended by both sides
	Broken                   // ended by an error, or by an unexpected end of file
)

// String returns the state's name.
func (s State) String() string {
	names := []string{"unused", "opening", "established", "closed", "broken"}
	if s < State(len(names)) {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint64(s))
}

// KindUDP is the kind of a connection that is not TCP, and may lose bytes. The
// other kinds are defined by the program.
const KindUDP = 4

// Conn is the counters of one connection; each of them has one writer. The counts
// of bytes do not include the greeting. Times are in nanoseconds since 1970, by
// the wall clock.
type Conn struct {
	state      atomic.Uint64
	id         atomic.Uint64
	kind       atomic.Uint64
	localPort  atomic.Uint64
	remotePort atomic.Uint64
	sent       atomic.Uint64
	received   atomic.Uint64
	lost       atomic.Uint64
	doubled    atomic.Uint64
	corrupt    atomic.Uint64
	errors     atomic.Uint64
	lastAt     atomic.Int64
	silence    atomic.Int64
	silenceEnd atomic.Int64
	_          [2]uint64
}

// header is the file's first part.
type header struct {
	magic uint64
	used  atomic.Uint64
	ticks atomic.Uint64
	_     [13]uint64
}

// layout is the whole file.
type layout struct {
	header
	conns [MaxConns]Conn
}

const size = int(unsafe.Sizeof(layout{}))

// File is a mapped file of counters.
type File struct {
	mem []byte
	all *layout
}

// Create creates or overwrites the file, for the program that counts.
func Create(path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create statistics: %w", err)
	}
	defer f.Close() // the mapping outlives the descriptor
	if err := f.Truncate(int64(size)); err != nil {
		return nil, fmt.Errorf("size statistics %s: %w", path, err)
	}
	file, err := mapped(f, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, err
	}
	file.all.magic = magic
	return file, nil
}

// Open maps a file that another program writes, for reading.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open statistics: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open statistics %s: %w", path, err)
	}
	// Reading the mapping of a shorter file would raise SIGBUS.
	if info.Size() != int64(size) {
		return nil, fmt.Errorf("open statistics %s: has %d bytes, not %d", path, info.Size(), size)
	}
	file, err := mapped(f, unix.PROT_READ)
	if err != nil {
		return nil, err
	}
	if file.all.magic != magic {
		return nil, errors.Join(fmt.Errorf("open statistics %s: made by another version", path), file.Close())
	}
	return file, nil
}

func mapped(f *os.File, prot int) (*File, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, size, prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map statistics %s: %w", f.Name(), err)
	}
	return &File{mem: mem, all: (*layout)(unsafe.Pointer(&mem[0]))}, nil
}

// Close unmaps the file; no Conn of it may be used after that.
func (f *File) Close() error {
	f.all = nil
	return unix.Munmap(f.mem)
}

// Tick counts one round of the program's heartbeat.
func (f *File) Tick() { f.all.ticks.Add(1) }

// Ticks returns the number of ticks so far. While it stands still for longer than
// a beat, the program is not running.
func (f *File) Ticks() uint64 { return f.all.ticks.Load() }

// Add takes the next free slot for a connection.
func (f *File) Add() (*Conn, error) {
	n := f.all.used.Add(1)
	if n > MaxConns {
		f.all.used.Add(^uint64(0))
		return nil, fmt.Errorf("more than %d connections", MaxConns)
	}
	return &f.all.conns[n-1], nil
}

// Snapshot is a copy of one connection's counters. Its fields are those of Conn.
type Snapshot struct {
	State      State  `json:"-"`
	StateName  string `json:"state"`
	ID         uint64 `json:"id"`
	Kind       uint64 `json:"kind"`
	LocalPort  uint16 `json:"local_port"`
	RemotePort uint16 `json:"remote_port"`
	Sent       uint64 `json:"sent"`
	Received   uint64 `json:"received"`
	Lost       uint64 `json:"lost"`
	Doubled    uint64 `json:"doubled"`
	Corrupt    uint64 `json:"corrupt"`
	Errors     uint64 `json:"errors"`
	LastAt     int64  `json:"last_at"`     // when the last bytes arrived
	Silence    int64  `json:"silence"`     // longest time without any arriving, ns
	SilenceEnd int64  `json:"silence_end"` // when that time ended
}

// Snapshots reads all connections, in the order in which they were opened.
func (f *File) Snapshots() []Snapshot {
	n := min(f.all.used.Load(), MaxConns)
	all := make([]Snapshot, n)
	for i := range all {
		all[i] = f.all.conns[i].Snapshot()
	}
	return all
}

// Snapshot reads the counters one by one: each of them is exact, but they may be
// from slightly different moments.
func (c *Conn) Snapshot() Snapshot {
	state := State(c.state.Load())
	return Snapshot{
		State:      state,
		StateName:  state.String(),
		ID:         c.id.Load(),
		Kind:       c.kind.Load(),
		LocalPort:  uint16(c.localPort.Load()),
		RemotePort: uint16(c.remotePort.Load()),
		Sent:       c.sent.Load(),
		Received:   c.received.Load(),
		Lost:       c.lost.Load(),
		Doubled:    c.doubled.Load(),
		Corrupt:    c.corrupt.Load(),
		Errors:     c.errors.Load(),
		LastAt:     c.lastAt.Load(),
		Silence:    c.silence.Load(),
		SilenceEnd: c.silenceEnd.Load(),
	}
}

// Begin sets the connection's number, its kind, and its two ports.
func (c *Conn) Begin(id, kind uint64, localPort, remotePort uint16) {
	c.id.Store(id)
	c.kind.Store(kind)
	c.localPort.Store(uint64(localPort))
	c.remotePort.Store(uint64(remotePort))
}

// Enter moves the connection to a state. Broken is final.
func (c *Conn) Enter(s State) {
	for {
		now := c.state.Load()
		if State(now) == Broken || c.state.CompareAndSwap(now, uint64(s)) {
			return
		}
	}
}

// Wrote records how many bytes the kernel has accepted so far. It takes the sum
// and not the increment, so that a restored program counts from the state in its
// dump.
func (c *Conn) Wrote(sum uint64) { c.sent.Store(sum) }

// Read records how many bytes have arrived so far, and when the last of them did.
func (c *Conn) Read(sum uint64, at int64) {
	c.received.Store(sum)
	if last := c.lastAt.Swap(at); last != 0 && at-last > c.silence.Load() {
		c.silence.Store(at - last)
		c.silenceEnd.Store(at)
	}
}

// Lose counts bytes that have not arrived.
func (c *Conn) Lose(n uint64) { c.lost.Add(n) }

// Double counts bytes that have arrived again.
func (c *Conn) Double(n uint64) { c.doubled.Add(n) }

// Spoil counts bytes that have arrived but were never sent.
func (c *Conn) Spoil(n uint64) { c.corrupt.Add(n) }

// Fail counts a failed system call.
func (c *Conn) Fail() { c.errors.Add(1) }
