// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// message returns a struct inet_diag_msg about a socket from port 443 to port 50000.
func message(family, state byte, addrs ...byte) []byte {
	msg := make([]byte, diagLen)
	msg[0], msg[1] = family, state
	binary.BigEndian.PutUint16(msg[4:], 443)
	binary.BigEndian.PutUint16(msg[6:], 50000)
	copy(msg[8:], addrs)
	copy(msg[24:], addrs)
	binary.NativeEndian.PutUint32(msg[56:], 3)
	binary.NativeEndian.PutUint32(msg[68:], 4711)
	return msg
}

func TestParseSocket(t *testing.T) {
	mapped := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1}
	for name, tc := range map[string]struct {
		msg  []byte
		want string
		has4 bool
		wait uint32
	}{
		"IPv4":           {message(unix.AF_INET, Established, 192, 0, 2, 1), "192.0.2.1:443->192.0.2.1:50000", true, 0},
		"IPv4 on IPv6":   {message(unix.AF_INET6, Established, mapped...), "192.0.2.1:443->192.0.2.1:50000", true, 0},
		"IPv6, listens":  {message(unix.AF_INET6, Listen, 0x20, 1), "[2001::]:443->[2001::]:50000", false, 3},
		"one byte short": {message(unix.AF_INET, Established)[:diagLen-1], "", false, 0},
		"empty":          {nil, "", false, 0},
	} {
		s, ok := parseSocket(tc.msg)
		if ok != (tc.want != "") {
			t.Errorf("%s: %v", name, ok)
		}
		if ok && (s.Tuple.String() != tc.want || s.Is4() != tc.has4 || s.Inode != 4711 || s.Backlog != tc.wait) {
			t.Errorf("%s: got %+v", name, s)
		}
	}
}

// FuzzParseSocket reads a message of sock_diag.
func FuzzParseSocket(f *testing.F) {
	f.Add(message(unix.AF_INET, Established, 192, 0, 2, 1))
	f.Add(message(unix.AF_INET6, Listen, 0x20, 1))
	f.Fuzz(func(t *testing.T, msg []byte) {
		s, ok := parseSocket(msg)
		if ok != (len(msg) >= diagLen) {
			t.Fatalf("%d bytes: %v", len(msg), ok)
		}
		if !ok {
			return
		}
		if !s.Local.IsValid() || !s.Remote.IsValid() || s.Local.Addr().Is4In6() || s.Remote.Addr().Is4In6() {
			t.Errorf("an address that no packet has: %v", s.Tuple)
		}
		if s.State != Listen && s.Backlog != 0 || s.Connected() && (s.State == Listen || s.Remote.Port() == 0) {
			t.Errorf("got %+v", s)
		}
		if n := Pending([]Socket{s}); n < 0 {
			t.Errorf("%d handshakes are pending", n)
		}
	})
}

// FuzzTuples reads the connections of a record.
func FuzzTuples(f *testing.F) {
	f.Add([]byte("192.0.2.1:443 198.51.100.7:50000 [fe80::1%eth0]:443 [fe80::2%eth0]:50000 "))
	f.Add([]byte("[::ffff:192.0.2.1]:443 198.51.100.7:50000"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var ts, again Tuples
		if ts.UnmarshalText(text) != nil {
			return
		}
		written, err := ts.MarshalText()
		if err == nil {
			err = again.UnmarshalText(written)
		}
		if err != nil || !slices.Equal(ts, again) {
			t.Errorf("%q became %q and %v: %v", text, written, again, err)
		}
	})
}

// FuzzReuse reads the socket inodes of a record.
func FuzzReuse(f *testing.F) {
	f.Add([]byte("1 4294967295 7"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var r, again Reuse
		if r.UnmarshalText(text) != nil {
			return
		}
		written, err := r.MarshalText()
		if err == nil {
			err = again.UnmarshalText(written)
		}
		if err != nil || !maps.Equal(r, again) {
			t.Errorf("%q became %q and %v: %v", text, written, again, err)
		}
	})
}
