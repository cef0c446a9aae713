// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// New makes a network namespace in which there is nothing but a loopback interface that
// is down. It is gone when the last handle of it is closed.
func New() (*Namespace, error) {
	type result struct {
		ns  *Namespace
		err error
	}
	made := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The first thread stands for the whole process in /proc, so it must stay.
			ns, err := New()
			made <- result{ns, err}
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: fmt.Errorf("make a network namespace: %w", err)}
			return
		}
		ns, err := OpenSelf()
		made <- result{ns, err}
	}()
	r := <-made
	return r.ns, r.err
}
