// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire/wiretest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// TestPortProgram runs the filter on packets of all kinds, without a kernel.
func TestPortProgram(t *testing.T) {
	fragment := func(p []byte) []byte {
		p = slices.Clone(p)
		if p[0]>>4 == 4 {
			p[7] = 1
		} else {
			p[6] = 44 // a fragment header
		}
		return p
	}
	other := func(p []byte) []byte {
		p = slices.Clone(p)
		if p[0]>>4 == 4 {
			p[9] = 17
		} else {
			p[6] = 17
		}
		return p
	}
	for _, e := range wiretest.Ends { // port 443 speaks to port 40000
		p := Of(wiretest.Stream(e[0], e[1]), 1, FlagACK, make([]byte, 1000)).Packet()
		long := p
		if p[0]>>4 == 4 { // with options before the segment
			long = slices.Concat(p[:ip4Len], make([]byte, 8), p[ip4Len:])
			long[0] = 4<<4 | (ip4Len+8)/4
		}
		for _, tc := range []struct {
			what   string
			d      Direction
			ports  []uint16
			packet []byte
			passes bool
		}{
			{"for us", Arriving, []uint16{40000}, p, true},
			{"for us, of many", Arriving, []uint16{1, 40000, 50000}, p, true},
			{"with options", Arriving, []uint16{40000}, long, true},
			{"for others", Arriving, []uint16{39999, 40001}, p, false},
			{"from the port", Arriving, []uint16{443}, p, false},
			{"ours", Leaving, []uint16{443}, p, true},
			{"ours, with options", Leaving, []uint16{443}, long, true},
			{"others'", Leaving, []uint16{40000}, p, false},
			{"no port", Arriving, nil, p, false},
			{"fragment", Arriving, []uint16{40000}, fragment(p), false},
			{"no TCP", Arriving, []uint16{40000}, other(p), false},
			{"no IP", Arriving, []uint16{40000}, append([]byte{0x55}, p[1:]...), false},
			{"short", Arriving, []uint16{40000}, p[:22], false},
		} {
			vm, err := bpf.NewVM(portProgram(tc.d, tc.ports))
			nstest.Must(t, err)
			n, err := vm.Run(tc.packet)
			nstest.Must(t, err)
			if want := map[bool]int{true: headersLen}[tc.passes]; n != want {
				t.Errorf("%s, %s: %d bytes are copied, want %d", e[0], tc.what, n, want)
			}
		}
	}
}

// FuzzRanges has ports of any number become ranges that contain them, and no more than
// are allowed.
func FuzzRanges(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 1, 1, 0, 9}, uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, limit uint8) {
		limit = max(limit, 1)
		var ports []uint16
		for ; len(data) > 1; data = data[2:] {
			ports = append(ports, uint16(data[0])<<8|uint16(data[1]))
		}
		all := ranges(ports, int(limit))
		if len(all) > int(limit) || len(all) == 0 != (len(ports) == 0) {
			t.Fatalf("%d ranges for %d ports, of %d", len(all), len(ports), limit)
		}
		for i, r := range all {
			if r.low > r.high || i > 0 && r.low <= all[i-1].high {
				t.Errorf("ranges %v", all)
			}
			if !slices.Contains(ports, r.low) || !slices.Contains(ports, r.high) {
				t.Errorf("%v does not end with ports", r)
			}
		}
		for _, p := range ports {
			if !slices.ContainsFunc(all, func(r portRange) bool { return r.low <= p && p <= r.high }) {
				t.Errorf("%d is in none of %v", p, all)
			}
		}
	})
}

func TestRanges(t *testing.T) {
	for _, tc := range []struct {
		ports []uint16
		limit int
		want  []portRange
	}{
		{nil, 2, nil},
		{[]uint16{5, 4, 5, 7}, 9, []portRange{{4, 5}, {7, 7}}},
		{[]uint16{1, 10, 12, 100}, 3, []portRange{{1, 1}, {10, 12}, {100, 100}}},
		{[]uint16{1, 10, 12, 100}, 2, []portRange{{1, 12}, {100, 100}}},
		{[]uint16{0, 65535}, 1, []portRange{{0, 65535}}},
	} {
		if got := ranges(tc.ports, tc.limit); !slices.Equal(got, tc.want) {
			t.Errorf("%v in %d: %v, want %v", tc.ports, tc.limit, got, tc.want)
		}
	}
}

// TestTapPorts has the kernel copy the headers of what passes the filter, which it
// accepts with as many ports as there may be, and nothing else.
func TestTapPorts(t *testing.T) {
	t.Parallel()
	a, b := nstest.Pair(t)
	many := make([]uint16, 0, 10000)
	for p := range uint16(10000) {
		many = append(many, 3*p)
	}
	for _, tc := range []struct {
		d     Direction
		ports []uint16
		want  int
	}{
		{Arriving, []uint16{443}, 2},
		{Arriving, []uint16{40000}, 0}, // where it comes from
		{Arriving, append(many, 443), 2},
		{Arriving, nil, 0},
		{Leaving, []uint16{443}, 2},
		{Leaving, []uint16{40000}, 0}, // what arrives from there does not leave
	} {
		tap, err := netns.In(b, func() (*os.File, error) { return TapPorts(tc.d, tc.ports) })
		nstest.Must(t, err)
		for _, e := range [][2]string{{nstest.A4, nstest.B4}, {nstest.A6, nstest.B6}} {
			from, to := netip.AddrPortFrom(netip.MustParseAddr(e[0]), 40000), netip.AddrPortFrom(netip.MustParseAddr(e[1]), 443)
			s := Segment{Tuple: tcp.NewTuple(from, to), Flags: FlagRST, Data: make([]byte, 500)}
			sendFrom(t, a, s)
			s.Tuple = s.Reverse()
			sendFrom(t, b, s)
		}
		nstest.Must(t, tap.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		got := 0
		for buf := make([]byte, 2000); ; got++ {
			n, err := tap.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			nstest.Must(t, err)
			if _, size, ok := Parse(buf[:n]); !ok || size != 500 || n != headersLen {
				t.Errorf("%d bytes were copied, of %d: %v", n, size, ok)
			}
		}
		if got != tc.want {
			t.Errorf("%v, %d ports: heard %d packets, want %d", tc.d, len(tc.ports), got, tc.want)
		}
		nstest.Must(t, tap.Close())
	}
}

func sendFrom(t *testing.T, ns *netns.Namespace, s Segment) {
	t.Helper()
	nstest.Must(t, ns.Do(func() error {
		out, err := Open()
		if err != nil {
			return err
		}
		defer out.Close()
		if err := out.Send(s.Packet()); !errors.Is(err, unix.EPERM) {
			return err
		}
		return nil
	}))
}
