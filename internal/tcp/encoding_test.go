// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
)

// written is what a record has of these types.
type written struct {
	Conns Tuples `json:"conns,omitempty"`
	Reuse Reuse  `json:"reuse,omitempty"`
}

func TestEncoding(t *testing.T) {
	tuple := func(local, remote string) Tuple {
		return Tuple{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
	}
	for _, conns := range []Tuples{
		nil,
		{tuple("192.0.2.1:443", "198.51.100.7:50000")},
		{tuple("[2001:db8::1]:443", "[2001:db8::2]:50000"), tuple("[fe80::1%eth0]:443", "[fe80::2%eth0]:50000")},
	} {
		for _, reuse := range []Reuse{nil, {7: true}, {4294967295: true, 1: true}} {
			text, err := json.Marshal(&written{conns, reuse})
			if err != nil {
				t.Fatal(err)
			}
			var again written
			if err := json.Unmarshal(text, &again); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if !slices.Equal(again.Conns, conns) || !maps.Equal(again.Reuse, reuse) {
				t.Errorf("%v, %v became %v, %v", conns, reuse, again.Conns, again.Reuse)
			}
		}
	}
}

func TestEncodingRefused(t *testing.T) {
	for _, text := range []string{
		`{"conns":"192.0.2.1:443"}`, `{"conns":"192.0.2.1:443 x"}`, `{"conns":"x 192.0.2.1:443"}`, `{"conns":[1]}`,
		`{"reuse":"x"}`, `{"reuse":"4294967296"}`, `{"reuse":"-1"}`,
	} {
		if err := json.Unmarshal([]byte(text), new(written)); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

// BenchmarkEncoding writes and reads 10,000 connections.
func BenchmarkEncoding(b *testing.B) {
	r := &written{Reuse: Reuse{}}
	for i := range 10_000 {
		remote := netip.MustParseAddrPort(fmt.Sprintf("198.51.100.7:%d", 10_000+i))
		r.Conns = append(r.Conns, NewTuple(netip.MustParseAddrPort("192.0.2.1:443"), remote))
		r.Reuse[uint32(1_000_000+i)] = true // it fits
	}
	for b.Loop() {
		text, err := json.Marshal(r)
		if err == nil {
			err = json.Unmarshal(text, new(written))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
