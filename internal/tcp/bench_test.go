// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// manySockets opens n TCP sockets here, and returns the tree that is this process.
func manySockets(b *testing.B, n int) proc.Tree {
	p, err := proc.Open(os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = unix.Close(fd) })
	}
	return proc.Tree{p}
}

func BenchmarkInodes(b *testing.B) {
	tree := manySockets(b, 10_000)
	for b.Loop() {
		if inodes, err := Inodes(tree); err != nil || len(inodes) < 10_000 {
			b.Fatal(len(inodes), err)
		}
	}
}

func BenchmarkForceRepair(b *testing.B) {
	tree := manySockets(b, 10_000)
	for b.Loop() {
		if err := ForceRepair(tree); err != nil {
			b.Fatal(err)
		}
	}
}
