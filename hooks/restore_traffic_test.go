// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// TestTrafficWatch has two connections, one of which carries bytes one way after the
// other, and one that the kernel knows only later.
func TestTrafficWatch(t *testing.T) {
	local := netip.MustParseAddrPort("192.0.2.1:1")
	busy := tcp.NewTuple(local, netip.MustParseAddrPort("192.0.2.2:2"))
	late := tcp.NewTuple(local, netip.MustParseAddrPort("192.0.2.3:3"))
	looks := []map[tcp.Tuple]tcp.Progress{
		{busy: {Acked: 5, Received: 7}},
		{busy: {Acked: 5, Received: 8}},
		{busy: {Acked: 5, Received: 9}, late: {}},
		{busy: {Acked: 6, Received: 9}, late: {Acked: 1, Received: 1}},
	}
	n := 0
	w := trafficWatch{conns: []tcp.Tuple{busy, late}, sleep: func(time.Duration) {}, list: func() (map[tcp.Tuple]tcp.Progress, error) {
		n++
		return looks[n-1], nil
	}}
	flows, err := w.run(time.Now())
	if err != nil || n != len(looks) {
		t.Fatalf("%d looks: %v", n, err)
	}
	if f := flows[0]; f.InNS == nil || f.OutNS == nil || *f.InNS >= *f.OutNS {
		t.Errorf("the busy connection: %+v", f)
	}
	if f := flows[1]; f.InNS == nil || f.OutNS == nil {
		t.Errorf("the late connection: %+v", f)
	}
}

// TestTrafficWatchEnds has a connection that carries nothing, and a kernel that refuses.
func TestTrafficWatchEnds(t *testing.T) {
	idle := tcp.NewTuple(netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2"))
	list := func() (map[tcp.Tuple]tcp.Progress, error) { return nil, nil }
	slept := time.Duration(0)
	w := trafficWatch{conns: []tcp.Tuple{idle}, sleep: func(d time.Duration) { slept += d }, list: list}
	flows, err := w.run(time.Now().Add(-lookTime + 50*time.Millisecond))
	if err != nil || len(flows) != 1 || flows[0].InNS != nil || flows[0].OutNS != nil || slept == 0 {
		t.Errorf("an idle connection: %+v, %v, slept %v", flows, err, slept)
	}
	refused := errors.New("refused")
	w.list = func() (map[tcp.Tuple]tcp.Progress, error) { return nil, refused }
	if flows, err := w.run(time.Now()); !errors.Is(err, refused) || len(flows) != 1 {
		t.Errorf("refused: %+v, %v", flows, err)
	}
}
