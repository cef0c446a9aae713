// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"net/netip"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// BenchmarkFreeze measures what a dump has to wait for while its tasks are stopped.
func BenchmarkFreeze(b *testing.B) {
	for _, k := range backends {
		b.Run(string(k), func(b *testing.B) {
			f := open(b, nstest.New(b), k)
			for b.Loop() {
				must(b, f.Freeze(time.Minute))
			}
		})
	}
}

func BenchmarkFreezeThaw(b *testing.B) {
	for _, k := range backends {
		b.Run(string(k), func(b *testing.B) {
			f := open(b, nstest.New(b), k)
			for b.Loop() {
				must(b, f.Prepare(0))
				must(b, f.Freeze(time.Minute))
				must(b, f.Thaw())
			}
		})
	}
}

// BenchmarkConns freezes 10,000 connections at once.
func BenchmarkConns(b *testing.B) {
	conns := manyConns(10_000)
	for _, k := range backends {
		b.Run(string(k), func(b *testing.B) {
			f := openConns(b, nstest.New(b), k, "bench")
			for b.Loop() {
				must(b, f.Freeze(conns, time.Minute))
				b.StopTimer()
				must(b, f.Thaw())
				b.StartTimer()
			}
		})
	}
}

// manyConns returns n connections of one server, half of them over IPv6.
func manyConns(n int) []tcp.Tuple {
	var conns []tcp.Tuple
	server4, server6 := netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort("[2001:db8::1]:443")
	client4, client6 := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("2001:db8:1::1")
	for i := range n / 2 {
		port := uint16(1024 + i%60000)
		conns = append(conns,
			tcp.Tuple{Local: server4, Remote: netip.AddrPortFrom(client4, port)},
			tcp.Tuple{Local: server6, Remote: netip.AddrPortFrom(client6, port)})
		client4, client6 = client4.Next(), client6.Next()
	}
	return conns
}
