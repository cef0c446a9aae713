// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// reset returns a reset from the peer's port.
func reset(t *testing.T, port uint16) packet {
	t.Helper()
	app, err1 := net.ParseMAC(appMAC)
	peer, err2 := net.ParseMAC(peerMAC)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP(peer4), DstIP: net.ParseIP(app4)}
	tcp := &layers.TCP{SrcPort: layers.TCPPort(port), DstPort: 7000, RST: true}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: peer, DstMAC: app, EthernetType: layers.EthernetTypeIPv4}, ip, tcp)
	if err != nil {
		t.Fatal(err)
	}
	return packet{at: time.Now(), head: b.Bytes(), length: len(b.Bytes())}
}

// TestJudgePackets finds a reset of a connection, and none of an attempt that the client
// has given up before there was a connection.
func TestJudgePackets(t *testing.T) {
	peers, err := stats.Create(filepath.Join(t.TempDir(), "peers"))
	if err != nil {
		t.Fatal(err)
	}
	defer peers.Close()
	conn, err := peers.Add()
	if err != nil {
		t.Fatal(err)
	}
	const known, givenUp = 46944, 46946
	conn.Begin(0, 0, known, 7000)
	for port, want := range map[uint16]int{known: 1, givenUp: 0} {
		seen := &capture{all: []packet{reset(t, port)}}
		p := &pod{packets: seen, trees: []*tree{{peers: peers}}}
		r := &run{dir: t.TempDir(), begun: time.Now()}
		r.judgePackets(p)
		if len(r.broken) != want {
			t.Errorf("a reset from port %d breaks %v", port, r.broken)
		}
	}
}
