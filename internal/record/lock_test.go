// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// TestLock has one holder at a time, and leaves no file.
func TestLock(t *testing.T) {
	fresh(t)
	f, err := Acquire("1@1")
	must(t, err)
	must(t, os.WriteFile(action.Socket("1@1"), nil, 0o600))
	if _, err := Acquire("1@1"); !errors.Is(err, unix.EAGAIN) || !strings.Contains(err.Error(), "1@1") ||
		!strings.Contains(err.Error(), fmt.Sprintf("process %d has it", os.Getpid())) {
		t.Errorf("locked twice: %v", err)
	}
	another, err := Acquire("2@2")
	must(t, err)
	Release("2@2", another)
	Release("1@1", f)
	entries, err := os.ReadDir(Dir)
	must(t, err)
	if len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
	// As one that ends without a word: the kernel gives it back.
	f, err = Acquire("1@1")
	must(t, err)
	must(t, f.file.Close())
	f, err = Acquire("1@1")
	must(t, err)
	Release("1@1", f)
}

// TestLockExcludes has many take the same lock again and again, and remove its file
// each time: never do two have it.
func TestLockExcludes(t *testing.T) {
	fresh(t)
	var (
		holders, shared, taken atomic.Int32
		all                    sync.WaitGroup
	)
	for range 8 {
		all.Go(func() {
			for range 200 {
				l, err := Acquire("1@1")
				if err != nil {
					continue // somebody had it for too long
				}
				if holders.Add(1) > 1 {
					shared.Add(1)
				}
				taken.Add(1)
				time.Sleep(10 * time.Microsecond)
				holders.Add(-1)
				Release("1@1", l)
			}
		})
	}
	all.Wait()
	if shared.Load() > 0 || taken.Load() < 200 {
		t.Errorf("%d of %d times two had the lock", shared.Load(), taken.Load())
	}
}

// TestSweepSpares has locks swept while others take them: one that is taken is never
// removed.
func TestSweepSpares(t *testing.T) {
	fresh(t)
	stop := make(chan struct{})
	var sweeper sync.WaitGroup
	sweeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				Sweep()
			}
		}
	})
	for range 500 {
		l, err := Acquire("1@1")
		must(t, err)
		if !Busy("1@1") {
			t.Error("the lock that we have is free")
		}
		Release("1@1", l)
	}
	close(stop)
	sweeper.Wait()
}
