// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// exchange is what a capture shows of one connection with a peer whose window was closed
// before a freeze.
type exchange struct {
	shut   time.Time // when the app's window was shut: no segment has another one from then to the end of the outage
	open   time.Time // its first one with another window after that, and after the outage, that the peer can heed
	data   time.Time // the peer's first bytes after that
	heard  time.Time // the app's last bytes in between, which the peer may have waited for
	probes int       // the peer's segments while the window was shut, without more than a byte
	resent int       // the peer's segments with bytes that it had sent before the window was opened, but for probes
	sent   uint32    // the sequence number after the last byte that the peer has sent
	before uint32    // the same when the window was opened
	begun  bool
	told   bool
	next   uint32   // the sequence number after the last byte that the app has sent
	text   []string // the segments, for a test that fails
}

// exchanges finds in the capture what has become of each connection, by its number. The
// outage ends at the given time, or in a dump that fails when the dump began.
func (p *pair) exchanges(over time.Time) map[uint64]*exchange {
	all, byEnd := map[uint64]*exchange{}, map[farEnd]*exchange{}
	for end, id := range p.farEnds() {
		all[id] = &exchange{}
		byEnd[end] = all[id]
	}
	for at, packet := range p.packets.packets() {
		tcp, ok := packet.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ok {
			continue
		}
		v6 := packet.Layer(layers.LayerTypeIPv6) != nil
		if x := byEnd[farEnd{v6, uint16(tcp.DstPort)}]; x != nil {
			x.fromApp(at, packet, tcp, p.from, over)
		} else if x := byEnd[farEnd{v6, uint16(tcp.SrcPort)}]; x != nil {
			x.fromPeer(at, packet, tcp, p.from)
		}
	}
	return all
}

// fromApp adds a segment of the app's. Time stamps are by the wall clock of this machine.
func (x *exchange) fromApp(at time.Time, packet gopacket.Packet, tcp *layers.TCP, from, over time.Time) {
	// What the kernel sends when a socket leaves repair mode (tcp_send_window_probe) has a
	// sequence number that is 1 too low: the peer answers it, and does not heed its window.
	old := x.told && int32(tcp.Seq-x.next) < 0
	if end := tcp.Seq + payload(packet); !x.told || int32(end-x.next) > 0 {
		x.told, x.next = true, end
	}
	if at.Before(from) {
		return
	}
	x.note(at.Sub(from), map[bool]string{false: "<", true: "again <"}[old], packet, tcp)
	if payload(packet) > 0 && !x.open.IsZero() && x.data.IsZero() {
		x.heard = at
	}
	switch {
	case tcp.Window == 0 && x.shut.IsZero():
		x.shut = at
	case tcp.Window != 0 && at.Before(over):
		x.shut, x.resent = time.Time{}, 0 // it was full, or is given back
	case tcp.Window != 0 && !x.shut.IsZero() && x.open.IsZero() && !at.Before(over) && (!old || payload(packet) > 0):
		x.open, x.before = at, x.sent
	}
}

// fromPeer adds a segment of the peer's.
func (x *exchange) fromPeer(at time.Time, packet gopacket.Packet, tcp *layers.TCP, from time.Time) {
	length := payload(packet)
	end := tcp.Seq + length
	if !x.begun {
		x.begun, x.sent = true, end
	}
	old := length > 0 && int32(tcp.Seq-x.sent) < 0
	if int32(end-x.sent) > 0 {
		x.sent = end
	}
	if at.Before(from) {
		return
	}
	x.note(at.Sub(from), map[bool]string{false: ">", true: "again >"}[old], packet, tcp)
	shut := !x.shut.IsZero() && x.open.IsZero()
	switch {
	case shut && length <= 1:
		x.probes++
	case x.shut.IsZero():
		// If it repeats something it is because the machine is busy.
	case old && (x.open.IsZero() || int32(tcp.Seq-x.before) < 0):
		x.resent++
	}
	if length > 0 && !x.open.IsZero() && x.data.IsZero() {
		x.data = at
	}
}

// note keeps the last segments before the peer goes on, and some after that.
func (x *exchange) note(after time.Duration, way string, packet gopacket.Packet, tcp *layers.TCP) {
	const most = 40
	x.text = append(x.text, fmt.Sprintf("  %12s %7s seq %d, %d bytes, ack %d, window %d",
		after.Round(time.Microsecond), way, tcp.Seq, payload(packet), tcp.Ack, tcp.Window))
	if x.data.IsZero() && len(x.text) > most {
		x.text = x.text[1:]
	} else if len(x.text) > 2*most {
		x.text = x.text[:2*most]
	}
}

// waited returns how long after it was told of an open window, or got an answer that it had
// waited for, the peer sent its first bytes. The error says what is missing.
func (x *exchange) waited() (time.Duration, error) {
	switch {
	case x.shut.IsZero():
		return 0, errors.New("the window was never shut")
	case x.open.IsZero():
		return 0, errors.New("the window was never opened again")
	case x.data.IsZero():
		return 0, errors.New("the peer sent no byte after the window was opened")
	}
	if x.heard.After(x.open) {
		return x.data.Sub(x.heard), nil
	}
	return x.data.Sub(x.open), nil
}
