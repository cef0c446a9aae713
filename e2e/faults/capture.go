// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

// packet is a frame on the peer's interface.
type packet struct {
	at     time.Time
	head   []byte
	length int
}

// capture records the head of every frame on the peer's interface, both ways.
type capture struct {
	fd   int
	done chan struct{}
	mu   sync.Mutex
	all  []packet
}

const snap = 120 // enough for all headers

func startCapture(peer string) (*capture, error) {
	c := &capture{fd: -1, done: make(chan struct{})}
	err := within(peer, func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		c.fd = fd
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	})
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	go c.read()
	return c, nil
}

func (c *capture) read() {
	buf, oob := make([]byte, snap), make([]byte, 128)
	for {
		select {
		case <-c.done:
			_ = unix.Close(c.fd)
			return
		default:
		}
		n, oobn, _, _, err := unix.Recvmsg(c.fd, buf, oob, unix.MSG_TRUNC)
		if err != nil {
			continue // nothing came
		}
		p := packet{at: time.Now(), length: n, head: bytes.Clone(buf[:min(n, snap)])}
		if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
			for _, m := range messages {
				if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
					p.at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
				}
			}
		}
		c.mu.Lock()
		c.all = append(c.all, p)
		c.mu.Unlock()
	}
}

func (c *capture) stop() {
	select {
	case <-c.done:
	default:
		close(c.done)
	}
}

// packets returns what was recorded so far.
func (c *capture) packets() []packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[:len(c.all):len(c.all)]
}

// segment is what a frame says that matters here.
type segment struct {
	fromApp, tcp, fin, rst, syn bool
	unreachable                 bool // an ICMP error, other than those of a nudge (see nudge.Acks)
	payload                     int
	src, dst                    uint16
	seq                         uint32
}

func (p packet) parse() (s segment) {
	h := p.head
	if len(h) < 14+20 {
		return s
	}
	s.fromApp = net.HardwareAddr(h[6:12]).String() == appMAC
	var transport []byte
	var proto byte
	var length int
	switch binary.BigEndian.Uint16(h[12:]) {
	case 0x0800:
		header := int(h[14]&15) * 4
		if len(h) < 14+header {
			return s
		}
		proto, transport = h[14+9], h[14+header:]
		length = int(binary.BigEndian.Uint16(h[14+2:])) - header
	case 0x86dd:
		if len(h) < 14+40 {
			return s
		}
		proto, transport = h[14+6], h[14+40:]
		length = int(binary.BigEndian.Uint16(h[14+4:]))
	default:
		return s
	}
	switch {
	case proto == unix.IPPROTO_TCP && len(transport) >= 20:
		s.tcp = true
		flags := transport[13]
		s.fin, s.syn, s.rst = flags&1 != 0, flags&2 != 0, flags&4 != 0
		s.src, s.dst = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
		s.seq = binary.BigEndian.Uint32(transport[4:])
		s.payload = length - int(transport[12]>>4)*4
	case proto == unix.IPPROTO_ICMP && len(transport) > 1:
		s.unreachable = transport[0] == 3 && transport[1] != 1 // the host
	case proto == unix.IPPROTO_ICMPV6 && len(transport) > 1:
		s.unreachable = transport[0] == 1 && transport[1] != 0 // no route
	}
	return s
}

func (s segment) String() string {
	who := "peer"
	if s.fromApp {
		who = "app"
	}
	text := fmt.Sprintf("from the %s, %d -> %d, seq %d, %d bytes", who, s.src, s.dst, s.seq, s.payload)
	for flag, name := range map[*bool]string{&s.fin: "FIN", &s.rst: "RST", &s.syn: "SYN", &s.unreachable: "ICMP unreachable"} {
		if *flag {
			text += " " + name
		}
	}
	return text
}

// save writes the packets to a file for tcpdump.
func (c *capture) save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := pcapgo.NewWriter(f)
	if err := w.WriteFileHeader(snap, layers.LinkTypeEthernet); err != nil {
		return err
	}
	for _, p := range c.packets() {
		info := gopacket.CaptureInfo{Timestamp: p.at, CaptureLength: len(p.head), Length: p.length}
		if err := w.WritePacket(info, p.head); err != nil {
			return err
		}
	}
	return nil
}
