// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"io"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// Archives come from registries and from users, and are read by root. Nothing in them
// may cost more than this.
const (
	maxEntries  = 1 << 20   // entries of all tar archives together, or files of a directory
	maxKept     = 256 << 20 // bytes that are kept in memory, of all files together
	maxImage    = 128 << 20 // of one image that is needed whole
	maxJSON     = 4 << 20   // of a file of JSON
	maxPrefix   = 64 << 10  // of a file whose beginning is enough
	maxName     = 4096      // bytes of a name, as PATH_MAX
	maxDepth    = 2         // archives within each other: an image, and a layer of it
	maxTotal    = 256 << 30 // bytes that come of what is compressed
	maxWindow   = 128 << 20 // of a zstd stream: "zstd --long" makes such ones
	freeOfRatio = 1 << 30   // bytes that may come of it in any case
	maxRatio    = 256       // and besides, for each byte that is compressed
	maxFound    = 64        // checkpoints of one archive: a pod may have several containers
)

// perFile is what a kept file costs besides its content and its name, about.
const perFile = 512

// budget is what is left of the limits.
type budget struct {
	entries int
	kept    int64
	total   int64 // bytes that may still come of what is compressed
}

// newBudget returns the limits for something compressed, or not, of this size.
func newBudget(size int64) *budget {
	b := &budget{entries: maxEntries, kept: maxKept, total: freeOfRatio}
	b.grow(size)
	return b
}

// grow raises the limit by that for some more bytes to decompress.
func (b *budget) grow(size int64) {
	b.total += maxRatio * min(size, maxTotal/maxRatio)
	b.total = min(b.total, maxTotal)
}

// entry takes one entry off the budget.
func (b *budget) entry() error {
	if b.entries--; b.entries < 0 {
		return tooLarge("there are more than %d files in it", maxEntries)
	}
	return nil
}

// keep takes what will be kept of a file off the budget.
func (b *budget) keep(name string, n int64) error {
	if b.kept -= n + int64(len(name)) + perFile; b.kept < 0 {
		return tooLarge("its images have more than %d bytes, without the memory pages", int64(maxKept))
	}
	return nil
}

func tooLarge(format string, args ...any) error {
	return code.New(code.TooLarge, fmt.Sprintf(format, args...)+": no checkpoint that CRIU makes is like that, and it is not read further")
}

// inflated reads what a decompressor returns, and stops a bomb: far more comes of it
// than of anything real. What is compressed twice counts twice.
type inflated struct {
	r io.Reader
	b *budget
}

func (i inflated) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	if i.b.total -= int64(n); i.b.total < 0 {
		return 0, tooLarge("it is compressed, and more comes of it than %d times its size", maxRatio)
	}
	return n, err
}

// readAtMost reads the beginning of a file.
func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r, limit))
}
