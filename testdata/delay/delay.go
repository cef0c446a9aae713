// SPDX-License-Identifier: Apache-2.0

// Package delay is a wire with a length: it forwards the frames between two network
// interfaces, each a fixed time after it came. It stands in for the kernel's netem, which
// is not everywhere, in tests and measurements that need a round trip.
//
// The two interfaces are the near ends of two veth pairs, in a namespace that has nothing
// else to do with them: no addresses, no bridge.
package delay

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxFrame is the length in bytes of what can come at once: a segment of 64 KiB that is
	// yet to be cut up (GSO), with its headers and struct virtio_net_hdr.
	maxFrame = 66 << 10
	// waiting is how many frames can be on their way in one direction. More are dropped, as
	// by a router whose queue is full.
	waiting = 1 << 16
	// socketBuffer is the length in bytes of the kernel's queue in front of that.
	socketBuffer = 64 << 20
)

// Wire forwards until it is closed.
type Wire struct {
	ends    [2]*os.File // packet sockets, each of which receives what its interface does
	delay   time.Duration
	lost    atomic.Uint64
	closed  atomic.Bool
	running sync.WaitGroup
}

// frame is what has come from one end, and is due at the other.
type frame struct {
	bytes []byte // struct virtio_net_hdr and the frame
	due   time.Time
}

// New joins two interfaces of the calling thread's network namespace, which are up. A frame
// takes the delay from one to the other, so that a round trip takes twice as long.
func New(a, b string, delay time.Duration) (*Wire, error) {
	w := &Wire{delay: delay}
	for i, name := range []string{a, b} {
		var err error
		if w.ends[i], err = open(name); err != nil {
			_ = w.Close()
			return nil, fmt.Errorf("packet socket on %s: %w", name, err)
		}
	}
	for i := range w.ends {
		queue := make(chan frame, waiting)
		w.running.Go(func() { w.receive(w.ends[i], queue) })
		w.running.Go(func() { w.send(w.ends[1-i], queue) })
	}
	return w, nil
}

// open opens a socket for whole frames. The kernel leaves checksums to be filled in and
// segments to be cut up by the device, and a veth pair does neither: with PACKET_VNET_HDR
// (packet(7)) each frame comes with a header that says what is left to do, and goes on with it.
func open(name string) (*os.File, error) {
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network byte order
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	// Of protocol 0 it receives nothing until it is bound.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	for _, option := range []struct{ level, name, value int }{
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer},
	} {
		if err := unix.SetsockoptInt(fd, option.level, option.name, option.value); err != nil {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("option %d: %w", option.name, err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// receive queues what comes from one end.
func (w *Wire) receive(from *os.File, queue chan<- frame) {
	defer close(queue)
	buf := make([]byte, maxFrame)
	for {
		n, err := from.Read(buf)
		switch {
		case w.closed.Load():
			return
		case err != nil:
			// The interface went down (ENETDOWN, said once), or has gone for good: then
			// nothing comes any more, until somebody closes the wire.
			continue
		}
		select {
		case queue <- frame{append([]byte(nil), buf[:n]...), time.Now().Add(w.delay)}:
		default:
			w.lost.Add(1)
		}
	}
}

// send sends each frame to the other end when it is due.
func (w *Wire) send(to *os.File, queue <-chan frame) {
	for f := range queue {
		time.Sleep(time.Until(f.due))
		if w.closed.Load() {
			continue
		}
		if _, err := to.Write(f.bytes); err != nil {
			w.lost.Add(1)
		}
	}
}

// Lost returns how many frames were not forwarded: too many were on their way, or the
// interface at the other end would not take them.
func (w *Wire) Lost() uint64 { return w.lost.Load() }

// Close takes the wire away, and what is on its way with it.
func (w *Wire) Close() error {
	w.closed.Store(true)
	var errs []error
	for _, end := range w.ends {
		if end != nil {
			// A reader that waits returns; the file itself is closed when it is done.
			errs = append(errs, end.Close())
		}
	}
	w.running.Wait()
	return errors.Join(errs...)
}
