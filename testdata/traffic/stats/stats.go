// Package stats is the file in which a traffic program shows what it sees,
// while it runs and after it has gone: a fixed array of counters in shared
// memory. The program writes nothing else while its connections are well, so
// that neither its size nor its position changes between dump and restore.
package stats

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// magic begins every file; it changes with the layout.
const magic = 0x6e66_7374_6174_0001

// MaxConns is the number of connections that one file has room for.
const MaxConns = 1024

// State tells where a connection is in its life.
type State uint64

// The states of a connection.
const (
	Unused      State = iota // the slot belongs to no connection
	Opening                  // the client is still dialling
	Established              // established, at least one way
	Closed                   // ended as both sides meant it to
	Broken                   // ended by an error, or by an end of file too early
)

// String names the state.
func (s State) String() string {
	names := []string{"unused", "opening", "established", "closed", "broken"}
	if s < State(len(names)) {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint64(s))
}

// KindUDP is the kind of what is no TCP connection: it may lose bytes. The
// program has names for the other kinds.
const KindUDP = 4

// Conn is one connection's counters, one writer for each of them. Bytes count
// the pattern only, not the greeting before it. Times are in nanoseconds since
// 1970, by the wall clock.
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

// Create makes the file anew, for the program that counts.
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
	// A shorter file would be a bus error at the first look.
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

// Ticks is the heartbeat so far. While it stands still the program has not
// executed an instruction for longer than a beat.
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

// Snapshot is what one connection's counters said at one moment. Its fields
// are those of Conn.
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
	LastAt     int64  `json:"last_at"`     // when the newest bytes came
	Silence    int64  `json:"silence"`     // longest time without any, ns
	SilenceEnd int64  `json:"silence_end"` // when that one ended
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

// Snapshot reads the counters one by one; each is exact, but they may be of
// slightly different moments.
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

// Begin names the connection: its number, its kind, and its two ports.
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

// Wrote tells how many bytes the kernel has taken so far. It is given the sum
// and not the step, so that a program put back to an earlier state counts from
// that state on.
func (c *Conn) Wrote(sum uint64) { c.sent.Store(sum) }

// Read tells how many bytes have come so far, and when the last of them came.
func (c *Conn) Read(sum uint64, at int64) {
	c.received.Store(sum)
	if last := c.lastAt.Swap(at); last != 0 && at-last > c.silence.Load() {
		c.silence.Store(at - last)
		c.silenceEnd.Store(at)
	}
}

// Lose counts bytes that never came.
func (c *Conn) Lose(n uint64) { c.lost.Add(n) }

// Double counts bytes that came again.
func (c *Conn) Double(n uint64) { c.doubled.Add(n) }

// Spoil counts bytes that came and had never been sent.
func (c *Conn) Spoil(n uint64) { c.corrupt.Add(n) }

// Fail counts an error of a system call.
func (c *Conn) Fail() { c.errors.Add(1) }
