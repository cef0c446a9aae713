// SPDX-License-Identifier: Apache-2.0

package action

// Buffer builds a text of limited length in memory that is there already, since
// before the runtime has started there is no other.
type Buffer struct {
	to   []byte
	n    int
	full bool
}

// NewBuffer returns an empty buffer that fills the slice it is given, and no more.
//
//go:nosplit
//go:norace
func NewBuffer(to []byte) Buffer { return Buffer{to: to} }

// Len returns the number of bytes in the buffer.
//
//go:nosplit
//go:norace
func (b *Buffer) Len() int { return b.n }

// Full reports whether something was added that no longer fitted, and is missing.
//
//go:nosplit
//go:norace
func (b *Buffer) Full() bool { return b.full }

// String returns a copy of the text; unlike the other methods it allocates.
func (b *Buffer) String() string { return string(b.to[:b.n]) }

// Byte adds one byte.
//
//go:nosplit
//go:norace
func (b *Buffer) Byte(c byte) {
	if uint(b.n) >= uint(len(b.to)) { // unsigned: no bounds check is left, which could panic
		b.full = true
		return
	}
	b.to[b.n] = c
	b.n++
}

// Text adds a string.
//
//go:nosplit
//go:norace
func (b *Buffer) Text(s string) {
	for i := range len(s) {
		b.Byte(s[i])
	}
}

// Number adds a number that is not negative, in decimal.
//
//go:nosplit
//go:norace
func (b *Buffer) Number(n int) {
	unit := 1
	for n/unit >= 10 {
		unit *= 10
	}
	for ; unit > 0; unit /= 10 {
		b.Byte(byte('0' + n/unit%10))
	}
}

// ID adds the name of a CRIU process, as the function ID describes it.
//
//go:nosplit
//go:norace
func (b *Buffer) ID(pid int, stat []byte) (ok bool) {
	from, to := StartTime(stat)
	b.Number(pid)
	b.Byte('@')
	for _, c := range stat[from:to] {
		b.Byte(c)
	}
	return from < to
}

// Stat adds the path of a process's stat, which ID reads.
//
//go:nosplit
//go:norace
func (b *Buffer) Stat(pid int) {
	b.Text("/proc/")
	b.Number(pid)
	b.Text("/stat")
}

// Socket adds the path of a settler's socket.
//
//go:nosplit
//go:norace
func (b *Buffer) Socket(id string) {
	b.Text(Dir + "/")
	b.Text(id)
	b.Text(SocketSuffix)
}

// Request adds a request as it is sent.
//
//go:nosplit
//go:norace
func (b *Buffer) Request(r *Request) {
	b.Text(Version)
	b.Byte(0)
	b.Text(r.Script)
	b.Byte(0)
	b.Text(r.Action)
	b.Byte(0)
	b.Text(r.ImageDir)
	b.Byte(0)
	b.Text(r.InitPID)
}
