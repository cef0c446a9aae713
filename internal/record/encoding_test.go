package record

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

func TestCompact(t *testing.T) {
	tuple := func(local, remote string) tcp.Tuple {
		return tcp.Tuple{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
	}
	for _, conns := range []Conns{
		nil,
		{tuple("192.0.2.1:443", "198.51.100.7:50000")},
		{tuple("[2001:db8::1]:443", "[2001:db8::2]:50000"), tuple("[fe80::1%eth0]:443", "[fe80::2%eth0]:50000")},
	} {
		for _, reuse := range []Reuse{nil, {7: true}, {4294967295: true, 1: true}} {
			r := Record{Conns: conns, Reuse: reuse}
			text, err := json.Marshal(&r)
			if err != nil {
				t.Fatal(err)
			}
			var again Record
			if err := json.Unmarshal(text, &again); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if !slices.Equal(again.Conns, conns) || !maps.Equal(again.Reuse, reuse) {
				t.Errorf("%v, %v became %v, %v", conns, reuse, again.Conns, again.Reuse)
			}
		}
	}
}

func TestCompactRefused(t *testing.T) {
	for _, text := range []string{
		`{"conns":"192.0.2.1:443"}`, `{"conns":"192.0.2.1:443 x"}`, `{"conns":"x 192.0.2.1:443"}`, `{"conns":[1]}`,
		`{"reuse":"x"}`, `{"reuse":"4294967296"}`, `{"reuse":"-1"}`,
	} {
		if err := json.Unmarshal([]byte(text), new(Record)); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

// BenchmarkRecord writes and reads a record with 10,000 connections.
func BenchmarkRecord(b *testing.B) {
	r := &Record{Reuse: Reuse{}}
	for i := range 10_000 {
		remote := netip.MustParseAddrPort(fmt.Sprintf("198.51.100.7:%d", 10_000+i))
		r.Conns = append(r.Conns, tcp.Tuple{Local: netip.MustParseAddrPort("192.0.2.1:443"), Remote: remote})
		r.Reuse[uint32(1_000_000+i)] = true //nolint:gosec // it fits
	}
	for b.Loop() {
		text, err := json.Marshal(r)
		if err == nil {
			err = json.Unmarshal(text, new(Record))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
