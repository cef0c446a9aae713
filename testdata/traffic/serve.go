// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// greetingTime is how long a client may take to say what it wants.
const greetingTime = 10 * time.Second

func (p *program) serve(addrs []string) error {
	// Go listens for MPTCP where the kernel has it, which CRIU cannot dump.
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	for _, addr := range addrs {
		l, err := plain.Listen(context.Background(), "tcp", addr)
		if err != nil {
			return err
		}
		go p.accept(l)
		u, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		go p.echo(u.(*net.UDPConn))
	}
	return nil
}

func (p *program) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			p.log.event(0, "accept", err)
			return
		}
		go func() {
			if err := p.welcome(conn.(*net.TCPConn)); err != nil {
				p.log.event(0, "welcome", err)
				_ = conn.Close()
			}
		}()
	}
}

// welcome reads the greeting and runs the flow that it asks for.
func (p *program) welcome(conn *net.TCPConn) error {
	greeting := make([]byte, greetingLen)
	_ = conn.SetReadDeadline(time.Now().Add(greetingTime))
	if _, err := io.ReadFull(conn, greeting); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	f, err := parseGreeting(greeting)
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	slot, err := p.stats.Add()
	if err != nil {
		return err
	}
	p.newStream(conn, f, server, slot).run()
	return nil
}

// echo sends every datagram back, and counts separately for each address that
// they come from.
func (p *program) echo(conn *net.UDPConn) {
	slots := map[netip.AddrPort]*udpSide{}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			p.log.event(0, "recvfrom", err)
			return
		}
		u := slots[from]
		if u == nil {
			slot, err := p.stats.Add()
			if err != nil {
				p.log.event(0, "recvfrom", err)
				return
			}
			slot.Begin(0, uint64(udp), port(conn.LocalAddr()), from.Port())
			slot.Enter(stats.Established)
			u = &udpSide{p: p, stats: slot}
			slots[from] = u
		}
		u.got(n)
		if p.quiet.Load() {
			continue
		}
		_, err = conn.WriteToUDPAddrPort(buf[:n], from)
		u.put(n, err)
	}
}
