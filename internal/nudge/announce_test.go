// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire/wiretest"
)

// TestAnnouncementsWhileAddressesChange looks for the addresses of a namespace
// while others come and go, which interrupts netlink's dumps again and again.
func TestAnnouncementsWhileAddressesChange(t *testing.T) {
	ns := nstest.New(t)
	nstest.Run(t, ns, "ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
	var batch bytes.Buffer
	const stable = 300
	for i := range stable {
		fmt.Fprintf(&batch, "addr add 10.1.%d.%d/32 dev d0\n", i/200, i%200+1)
	}
	fmt.Fprintln(&batch, "link set d0 up")
	file := filepath.Join(t.TempDir(), "batch")
	nstest.Must(t, os.WriteFile(file, batch.Bytes(), 0o600))
	nstest.Run(t, ns, "ip", "-batch", file)

	stop, done := make(chan struct{}), make(chan error)
	go func() {
		done <- ns.Do(func() error {
			d0, err := netlink.LinkByName("d0")
			if err != nil {
				return err
			}
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				addr, err := netlink.ParseAddr("10.2.0.1/32")
				if err == nil {
					err = netlink.AddrAdd(d0, addr)
				}
				if err == nil {
					err = netlink.AddrDel(d0, addr)
				}
				if err != nil {
					return err
				}
			}
		})
	}()
	for range 100 {
		var frames []frame
		err := ns.Do(func() (err error) {
			frames, err = announcements()
			return err
		})
		if err != nil {
			t.Errorf("no round of announcements: %v", err)
			break
		}
		first := netip.MustParseAddr("10.1.0.1").AsSlice()
		if len(frames) == 0 || !bytes.Contains(frames[0].data, first) {
			t.Errorf("%d announcements, without the address that was there all the time", len(frames))
		}
	}
	close(stop)
	nstest.Must(t, <-done)
}

func TestAnnouncements(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	p := gopacket.NewPacket(announcement(mac, netip.MustParseAddr("192.0.2.1")), layers.LayerTypeEthernet, gopacket.Default)
	arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
	if !ok || !bytes.Equal(arp.SourceProtAddress, arp.DstProtAddress) || !bytes.Equal(arp.SourceHwAddress, mac) || arp.Operation != layers.ARPRequest {
		t.Errorf("got %v", p)
	}
	for _, frame := range [][]byte{
		announcement(mac, netip.MustParseAddr("2001:db8::1")),
		solicitation(mac, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::1:2:3")),
	} {
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		ip, ok := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		if !ok || ip.HopLimit != 255 || p.ErrorLayer() != nil {
			t.Fatalf("got %v", p)
		}
		wiretest.Decode(t, frame[14:])
	}
	if dst := solicitation(mac, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::1:2:3"))[:6]; !bytes.Equal(dst, []byte{0x33, 0x33, 0xff, 2, 0, 3}) {
		t.Errorf("sent to %x", dst)
	}
}
