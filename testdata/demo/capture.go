// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// lastPort is the UDP port of the packet that ends a capture.
const lastPort = "9"

// capture counts the FIN and RST segments that reach one host.
type capture struct {
	screen   *screen
	tcpdump  *exec.Cmd
	ended    chan error
	fin, rst int
}

// startCapture starts a capture, and returns once packets are being counted.
func startCapture(h *host, s *screen) (*capture, error) {
	c := &capture{screen: s, ended: make(chan error, 1)}
	c.tcpdump = exec.Command("tcpdump", "--immediate-mode", "-U", "-n", "-s", "128", "-B", "16384", "-Z", "root",
		"-i", device, "-Q", "in", "-w", "-", "tcp or udp port "+lastPort)
	out, err := c.tcpdump.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := within(h.netns, c.tcpdump.Start); err != nil {
		return nil, err
	}
	// tcpdump writes the file's header once the interface is open.
	packets, err := pcapgo.NewReader(out)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture: %w", err), c.close())
	}
	go func() { c.ended <- c.count(packets) }()
	return c, nil
}

// count counts segments up to the packet that ends the capture.
func (c *capture) count(packets *pcapgo.Reader) error {
	for {
		data, _, err := packets.ReadPacketData()
		if err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		p := gopacket.NewPacket(data, packets.LinkType(), gopacket.NoCopy)
		t, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		switch {
		case !ok:
			return nil
		case t.RST:
			c.rst++
			c.screen.line(alarm, "at the client: RST from %s, port %d", p.NetworkLayer().NetworkFlow().Src(), t.SrcPort)
		case t.FIN:
			c.fin++
			c.screen.line(alarm, "at the client: FIN from %s, port %d", p.NetworkLayer().NetworkFlow().Src(), t.SrcPort)
		}
	}
}

// finish returns when every packet so far has been counted: it has the switch
// broadcast one more, and waits until that has arrived.
func (c *capture) finish() error {
	err := within(switchNetns, func() error {
		conn, err := net.Dial("udp4", net.JoinHostPort(broadcast, lastPort))
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte("the end"))
		return errors.Join(err, conn.Close())
	})
	if err != nil {
		return err
	}
	select {
	case err = <-c.ended:
		return err
	case <-time.After(patience):
		return errors.New("capture: the packet that marks its end has not arrived")
	}
}

func (c *capture) close() error {
	err := c.tcpdump.Process.Kill()
	_ = c.tcpdump.Wait() // which says that it was killed
	return err
}
