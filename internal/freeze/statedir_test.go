// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules/fake"
)

// small mounts a state directory that can be filled.
func small(t *testing.T) {
	t.Helper()
	fresh(t)
	must(t, unix.Mount("small", record.Dir, "tmpfs", 0, "mode=0700,nr_inodes=16"))
	t.Cleanup(func() { _ = unix.Unmount(record.Dir, unix.MNT_DETACH) })
}

func fill(t *testing.T) {
	t.Helper()
	for n := 0; ; n++ {
		err := os.WriteFile(filepath.Join(record.Dir, fmt.Sprint("other", n)), nil, 0o600)
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		must(t, err)
	}
}

// TestThawFullDisk thaws a hold with a state directory that takes no new file, which
// arms nothing more.
func TestThawFullDisk(t *testing.T) {
	for _, by := range []string{"settler", "command"} {
		t.Run(by, func(t *testing.T) {
			small(t)
			filter := fake.New()
			k, ns := New(filter), nstest.New(t)
			p := task(t, ns, true)
			f := hold(t, k, ns, p)
			fill(t)
			if err := f.Arm(); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("armed without a lock: %v", err)
			}
			if by == "settler" {
				must(t, f.Forget())
			} else {
				r, err := record.Load("1@1")
				must(t, err)
				must(t, k.Thaw(0, r))
				if stateOf(t, p) == 'T' || inRepair(t, p) > 0 {
					t.Errorf("after the thaw: state %c, %d sockets in repair mode", stateOf(t, p), inRepair(t, p))
				}
			}
			if filter.String() != "" {
				t.Errorf("in force: %s", filter)
			}
			if _, err := record.Load("1@1"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the record: %v", err)
			}
		})
	}
}

// TestThawReadOnly lets the tasks go on, and says that the record stays.
func TestThawReadOnly(t *testing.T) {
	small(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	p := task(t, ns, true)
	hold(t, k, ns, p)
	must(t, unix.Mount("", record.Dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	r, err := record.Load("1@1")
	must(t, err)
	if err := k.Thaw(0, r); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "1@1") {
		t.Errorf("got %v", err)
	}
	if stateOf(t, p) == 'T' || inRepair(t, p) > 0 || filter.String() != "" {
		t.Errorf("after the thaw: state %c, %d sockets in repair mode, in force %s", stateOf(t, p), inRepair(t, p), filter)
	}
}

// TestThawUnrecordedDescribed refuses a target of which nothing is known in a namespace
// that is frozen for somebody else.
func TestThawUnrecordedDescribed(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	p := task(t, ns, false)
	hold(t, k, ns, p)
	before := filter.String()
	if done, err := k.ThawUnrecorded(ns); err == nil || !strings.Contains(err.Error(), "netfreeze thaw ") || done != (Unrecorded{}) {
		t.Errorf("%+v, %v", done, err)
	}
	if filter.String() != before || stateOf(t, p) != 'T' {
		t.Errorf("in force %s, before %s", filter, before)
	}
}

// TestTidyLost drops the record of a dump whose namespace went with its tasks.
func TestTidyLost(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	task(t, ns, false)
	lives := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Dump, Phase: record.Ended})
	gone := *lives.Record
	gone.ID, gone.NetNS.Ino = "2@2", 1
	must(t, gone.Save())
	k.Tidy()
	if _, err := record.Load("1@1"); err != nil {
		t.Errorf("that of a living namespace: %v", err)
	}
	if _, err := record.Load("2@2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("that of a namespace that is gone: %v", err)
	}
	if left := lives.Record.Left(); left < 50*time.Second {
		t.Errorf("%v left", left)
	}
}
