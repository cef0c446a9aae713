// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// dialTime is how long a server may take until it accepts connections.
const dialTime = 10 * time.Second

func (p *program) connect(addrs, specs []string, firstID uint) error {
	if len(specs) == 0 {
		return errors.New("--conn is missing, which says what to open; see --help")
	}
	id := firstID
	for _, spec := range specs {
		f, n, err := parseFlow(spec)
		if err != nil {
			return err
		}
		for range n {
			for _, addr := range addrs {
				// The tag has room for 15 bits.
				if id > math.MaxInt16 {
					return fmt.Errorf("connection number %d is above %d", id, math.MaxInt16)
				}
				f.id = uint16(id)
				if err := p.open(addr, f); err != nil {
					return err
				}
				id++
			}
		}
	}
	return nil
}

// open opens one connection and starts its traffic.
func (p *program) open(addr string, f flow) error {
	slot, err := p.stats.Add()
	if err != nil {
		return err
	}
	slot.Enter(stats.Opening)
	if f.kind == udp {
		return p.chat(addr, f, slot)
	}
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	if d := p.keepAlive; d > 0 {
		if err := conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: d, Interval: d, Count: 8}); err != nil {
			return fmt.Errorf("have %s probed: %w", addr, err)
		}
	}
	if _, err := conn.Write(f.greeting()); err != nil {
		return fmt.Errorf("greet %s: %w", addr, err)
	}
	go p.newStream(conn, f, client, slot).run()
	return nil
}

// dial tries again until the server accepts the connection.
func dial(addr string) (*net.TCPConn, error) {
	deadline := time.Now().Add(dialTime)
	for {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		if time.Now().After(deadline) {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}
