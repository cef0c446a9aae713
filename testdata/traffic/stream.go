// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// stream is one side of one TCP connection, after the greeting.
type stream struct {
	p     *program
	conn  *net.TCPConn
	flow  flow
	side  side
	stats *stats.Conn
	// turn receives an element when a record from the other side is complete; it
	// is used by reqrep only.
	turn chan struct{}
}

func (p *program) newStream(conn *net.TCPConn, f flow, s side, slot *stats.Conn) *stream {
	slot.Begin(uint64(f.id), uint64(f.kind), port(conn.LocalAddr()), port(conn.RemoteAddr()))
	slot.Enter(stats.Established)
	return &stream{p: p, conn: conn, flow: f, side: s, stats: slot, turn: make(chan struct{}, 1)}
}

// run sends and receives until the connection or the program ends.
func (s *stream) run() {
	go s.receive()
	switch {
	case s.flow.kind.sends(s.side):
		s.send()
	case s.flow.half:
		if err := s.conn.CloseWrite(); err != nil {
			s.fail("shutdown", err)
		}
	}
}

// slowness is how long a slow receiver waits before each read.
const slowness = 20 * time.Millisecond

func (s *stream) other() side { return 1 - s.side }

// receive checks everything that arrives. The end of the other side's stream is an
// error, unless that side sends nothing and the flow is half-closed.
func (s *stream) receive() {
	check := checker{
		tag: tag(s.flow.id, s.other()), stats: s.stats,
		complain: func(err error) { s.p.log.event(uint64(s.flow.id), "content", err) },
	}
	var sum uint64
	records := uint64(0)
	buf := make([]byte, 64<<10)
	for {
		if s.flow.slow && !s.p.quiet.Load() {
			time.Sleep(slowness)
		}
		n, err := s.conn.Read(buf)
		if n > 0 {
			check.feed(buf[:n])
			sum += uint64(n)
			s.stats.Read(sum, time.Now().UnixNano())
		}
		if done := sum / uint64(s.flow.size); s.flow.kind == reqrep && done > records {
			records = done
			s.turn <- struct{}{}
		}
		if errors.Is(err, io.EOF) && s.flow.half && !s.flow.kind.sends(s.other()) {
			return
		}
		if err != nil {
			s.fail("read", err)
			return
		}
	}
}

// send writes record after record, each when it is due.
func (s *stream) send() {
	direction := tag(s.flow.id, s.side)
	record := make([]byte, s.flow.size)
	var seq, sum uint64
	pace := time.NewTicker(s.flow.interval)
	defer pace.Stop()
	for {
		if s.flow.kind == reqrep && s.side == server {
			<-s.turn
		} else {
			<-pace.C
		}
		for s.p.quiet.Load() || s.naps() {
			time.Sleep(beat)
		}
		seq = fill(record, direction, seq)
		n, err := s.conn.Write(record)
		sum += uint64(n)
		s.stats.Wrote(sum)
		if err != nil {
			s.fail("write", err)
			return
		}
		if s.flow.kind == reqrep && s.side == client {
			<-s.turn
		}
	}
}

// naps reports whether the stream is to send nothing for now. A reply is sent all
// the same.
func (s *stream) naps() bool {
	answers := s.flow.kind == reqrep && s.side == server
	return s.flow.nap && !answers && s.p.naps.Load()
}

func (s *stream) fail(what string, err error) {
	if s.p.ending.Load() {
		return
	}
	s.stats.Fail()
	s.stats.Enter(stats.Broken)
	s.p.log.event(uint64(s.flow.id), what, err)
}
