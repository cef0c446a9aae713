// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// everyPort stands for all interfaces of a namespace.
const everyPort = "any"

// capture records every packet on one interface of a topology, both ways.
type capture struct {
	t      *testing.T
	netns  string
	device string
	file   string
	cmd    *command
	done   bool
	tally  tally // result of the last call of since
}

// startCapture starts a capture, and returns once packets are being recorded.
func startCapture(t *testing.T, netns, device string) *capture {
	t.Helper()
	c := &capture{t: t, netns: netns, device: device, file: filepath.Join(t.TempDir(), "capture.pcap")}
	// Long enough for all headers, and for the packet that an ICMP error quotes.
	args := []string{"tcpdump", "--immediate-mode", "-U", "-n", "-s", "200", "-B", "16384", "-Z", "root", "-i", device, "-w", c.file}
	if device == everyPort {
		// A link type that gopacket can read, and a device to send the mark on.
		args = append(args, "-y", "LINUX_SLL")
		c.device = "br0"
	}
	c.cmd = newCommand(context.Background(), netns, args...)
	if err := c.cmd.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.keep)
	t.Cleanup(c.stop)
	c.mark("the capture to begin")
	return c
}

// mark sends frames with an unused protocol number until one of them has been
// recorded: everything before it has then been recorded too.
func (c *capture) mark(what string) {
	c.t.Helper()
	text := fmt.Sprintf("mark %d", time.Now().UnixNano())
	poll(c.t, patience, what, func() error {
		if err := within(c.netns, func() error { return sendFrame(c.device, nil, text) }); err != nil {
			return err
		}
		recorded, err := os.ReadFile(c.file)
		if err == nil && !bytes.Contains(recorded, []byte(text)) {
			err = errors.New("the marker frame has not been recorded")
		}
		return err
	})
}

// broadcast is the MAC address of everybody.
var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// sendFrame sends a frame with the EtherType reserved for local experiments
// (IEEE 802, 0x88b5) to a MAC address, nil for the device's own.
func sendFrame(device string, to net.HardwareAddr, text string) error {
	const experimental = 0x88b5
	link, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	defer syscall.Close(fd)
	if to == nil {
		to = link.HardwareAddr
	}
	frame := slices.Concat(to, link.HardwareAddr, []byte{experimental >> 8, experimental & 0xff}, []byte(text))
	return syscall.Sendto(fd, frame, 0, &syscall.SockaddrLinklayer{Ifindex: link.Index, Halen: 6})
}

// stop ends the recording.
func (c *capture) stop() {
	if c.done {
		return
	}
	c.done = true
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
		c.t.Errorf("stop tcpdump: %v", err)
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("tcpdump: %v", err)
	}
}

// keep copies the capture of a failed test (or, with NETFREEZE_KEEP_ALL, of
// every test) to the directory named by NETFREEZE_KEEP, if that is set, so that
// every packet can be looked at.
func (c *capture) keep() {
	dir := os.Getenv("NETFREEZE_KEEP")
	if dir == "" || !c.t.Failed() && os.Getenv("NETFREEZE_KEEP_ALL") == "" {
		return
	}
	packets, err := os.ReadFile(c.file)
	if err == nil {
		name := strings.ReplaceAll(c.t.Name(), "/", "_") + ".pcap"
		err = os.WriteFile(filepath.Join(dir, name), packets, 0o600)
	}
	if err != nil {
		c.t.Errorf("keep the capture: %v", err)
	}
}

// tally counts what a part of a capture contains.
type tally struct {
	tcp, fin, rst, icmpErrors int
	first                     []string       // the first few FIN and RST, as text
	announced                 map[string]int // gratuitous ARP requests, by MAC address
}

// stray returns an error that lists the first FIN and RST, nil if there are none.
func (n tally) stray() error {
	if n.fin+n.rst == 0 {
		return nil
	}
	return fmt.Errorf("%d FIN, %d RST:\n%s", n.fin, n.rst, strings.Join(n.first, "\n"))
}

// since ends the capture and counts what it has recorded from the given time on.
func (c *capture) since(from time.Time) tally {
	c.t.Helper()
	n := tally{announced: map[string]int{}}
	for at, p := range c.packets() {
		if !at.Before(from) {
			n.add(p, at.Sub(from))
		}
	}
	c.tally = n
	return n
}

// packets ends the capture and returns the recorded packets with their times.
func (c *capture) packets() iter.Seq2[time.Time, gopacket.Packet] {
	c.t.Helper()
	if !c.done {
		c.mark("the capture to be complete")
		c.stop()
	}
	return func(yield func(time.Time, gopacket.Packet) bool) {
		f, err := os.Open(c.file)
		if err != nil {
			c.t.Fatal(err)
		}
		defer f.Close()
		packets, err := pcapgo.NewReader(f)
		if err != nil {
			c.t.Fatalf("read capture: %v", err)
		}
		for {
			data, info, err := packets.ReadPacketData()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				c.t.Fatalf("read capture: %v", err)
			}
			if !yield(info.Timestamp, gopacket.NewPacket(data, packets.LinkType(), gopacket.DecodeOptions{Lazy: true, NoCopy: true})) {
				return
			}
		}
	}
}

func (n *tally) add(p gopacket.Packet, after time.Duration) {
	if tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); ok {
		n.tcp++
		if tcp.FIN {
			n.fin++
		}
		if tcp.RST {
			n.rst++
		}
		if (tcp.FIN || tcp.RST) && len(n.first) < 5 {
			n.first = append(n.first, fmt.Sprintf("  after %s: %s:%d -> %s:%d, seq %d, FIN %v, RST %v", after,
				p.NetworkLayer().NetworkFlow().Src(), tcp.SrcPort,
				p.NetworkLayer().NetworkFlow().Dst(), tcp.DstPort, tcp.Seq, tcp.FIN, tcp.RST))
		}
	}
	if arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		n.announced[announcement(arp)]++
	}
	n.icmpErrors += icmpErrors(p)
}

// icmpErrors returns 1 for an ICMP "destination unreachable" message, else 0.
func icmpErrors(p gopacket.Packet) int {
	if icmp, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok &&
		icmp.TypeCode.Type() == layers.ICMPv4TypeDestinationUnreachable {
		return 1
	}
	if icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok &&
		icmp.TypeCode.Type() == layers.ICMPv6TypeDestinationUnreachable {
		return 1
	}
	return 0
}

// payload returns the length of a TCP segment's data in bytes, according to its
// IP header: the capture may hold only the beginning of it.
func payload(p gopacket.Packet) uint32 {
	tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok {
		return 0
	}
	if ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
		return uint32(ip.Length) - 4*uint32(ip.IHL) - 4*uint32(tcp.DataOffset)
	}
	if ip, ok := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6); ok {
		return uint32(ip.Length) - 4*uint32(tcp.DataOffset)
	}
	return 0
}
