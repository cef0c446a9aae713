// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// udpSide counts the datagrams of one pair of addresses. Datagrams may get lost,
// but no system call may fail.
type udpSide struct {
	p              *program
	id             uint16
	stats          *stats.Conn
	sent, received uint64
}

func (u *udpSide) got(n int) {
	u.received += uint64(n)
	u.stats.Read(u.received, time.Now().UnixNano())
}

func (u *udpSide) put(n int, err error) {
	if err != nil {
		u.fail("sendto", err)
		return
	}
	u.sent += uint64(n)
	u.stats.Wrote(u.sent)
}

func (u *udpSide) fail(what string, err error) {
	if u.p.ending.Load() {
		return
	}
	u.stats.Fail()
	u.p.log.event(uint64(u.id), what, err)
}

// chat sends a datagram every interval and reads the answers.
func (p *program) chat(addr string, f flow, slot *stats.Conn) error {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	slot.Begin(uint64(f.id), uint64(f.kind), port(conn.LocalAddr()), port(conn.RemoteAddr()))
	slot.Enter(stats.Established)
	u := &udpSide{p: p, id: f.id, stats: slot}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				u.fail("recv", err)
				// An error caused by an ICMP message is reported once.
				time.Sleep(f.interval)
				continue
			}
			u.got(n)
		}
	}()
	go func() {
		record := make([]byte, f.size)
		var seq uint64
		for range time.Tick(f.interval) {
			if p.quiet.Load() {
				continue
			}
			seq = fill(record, tag(f.id, client), seq)
			n, err := conn.Write(record)
			u.put(n, err)
		}
	}()
	return nil
}
