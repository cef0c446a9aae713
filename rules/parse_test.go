// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

func TestDropUntil(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 23, 59, 58, 1, time.FixedZone("east", 3600))
	for _, c := range []struct {
		ttl  time.Duration
		rule string
		left time.Duration // rounded up to the end of a full second
	}{
		{time.Second, "-m time --datestop 2026-03-01T22:59:59 -j DROP", 2*time.Second - 1},
		{time.Second - 1, "-m time --datestop 2026-03-01T22:59:58 -j DROP", time.Second - 1},
		{time.Millisecond, "-m time --datestop 2026-03-01T22:59:58 -j DROP", time.Second - 1},
		{time.Hour, "-m time --datestop 2026-03-01T23:59:58 -j DROP", time.Hour + time.Second - 1},
	} {
		rule := dropUntil(now.Add(c.ttl))
		if rule != c.rule {
			t.Errorf("%s: got %q, want %q", c.ttl, rule, c.rule)
		}
		match, end, ok := dropsUntil(rule, now)
		if match != "" || !ok || end.Sub(now) != c.left {
			t.Errorf("%s: read back as %q, %s, %t, want %s", c.ttl, match, end.Sub(now), ok, c.left)
		}
		if _, _, ok := dropsUntil(rule, end); ok {
			t.Errorf("%s: still valid at its end", c.ttl)
		}
	}
	for _, rule := range []string{
		"", "-j DROP", "-m mark --mark 0xc114 -j RETURN", "-m time --datestop x -j DROP",
		"-m time --datestop 2126-03-01T22:59:59 -j ACCEPT", "-m time --datestop 2126-03-01T22:59:59 --kerneltz -j DROP",
	} {
		if match, end, ok := dropsUntil(rule, now); ok {
			t.Errorf("%q was read as %q until %s", rule, match, end)
		}
	}
}

func TestSegment(t *testing.T) {
	t.Parallel()
	for _, conn := range []tcp.Tuple{
		tuple("192.0.2.1:443", "192.0.2.2:65535"),
		tuple("[2001:db8::1]:443", "[2001:db8::2]:1"),
	} {
		if got, err := parseSegment(segment(conn.Local, conn.Remote)); err != nil || got != conn {
			t.Errorf("%s was read back as %s, %v", conn, got, err)
		}
		if got, err := keyConn(connKey(conn)); err != nil || got != conn {
			t.Errorf("%s was read back from a set as %s, %v", conn, got, err)
		}
	}
	for _, match := range []string{"", "-s 192.0.2.1", "-s x -d y", "-s 192.0.2.1 -d 192.0.2.2 --sport 65536", "-s 192.0.2.1 -d"} {
		if got, err := parseSegment(match); err == nil {
			t.Errorf("%q was read as %s", match, got)
		}
	}
	if _, err := keyConn(make([]byte, 17)); err == nil {
		t.Error("a key of 17 bytes was read as a connection")
	}
}

// FuzzRule parses what iptables -S might print.
func FuzzRule(f *testing.F) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Add("-s 192.0.2.1/32 -d 192.0.2.2/32 -p tcp -m tcp --sport 1 --dport 2 -m time --datestop 2026-03-01T22:59:59 -j DROP")
	f.Add("-m time --datestop 2026-03-01T22:59:59 -j DROP")
	f.Add("-s -d --sport -m time --datestop 9999-99-99T99:99:99 -j DROP")
	f.Fuzz(func(t *testing.T, rule string) {
		match, end, ok := dropsUntil(rule, now)
		if ok && !end.After(now) {
			t.Errorf("%q is over since %s", rule, end)
		}
		if conn, err := parseSegment(match); err == nil && !conn.Local.IsValid() {
			t.Errorf("%q was read as %s", match, conn)
		}
	})
}
