// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// In a time namespace (time_namespaces(7)) the kernel shifts CLOCK_BOOTTIME, and with it
// the start times in /proc/PID/stat, by an offset of the reader's namespace. A settler
// whose CRIU runs in one must not store what it reads: others would not find a process
// again by it. So whatever is stored is as the initial time namespace has it.

// tick is the unit of start times: USER_HZ is 100 on every architecture that Go knows.
const tick = 10 * time.Millisecond

// SinceBoot returns how long ago the host was booted, the time in suspend included
// (CLOCK_BOOTTIME of the initial time namespace). Nobody can set this clock.
func SinceBoot() (time.Duration, error) {
	offset, err := bootOffset()
	if err != nil {
		return 0, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return time.Duration(now.Nano()) - offset, nil
}

// storedRef is the stored form of a Ref: its start time is the host's.
type storedRef Ref

// MarshalJSON implements json.Marshaler. It stores the start time as the initial time
// namespace has it. (Where our offset is no multiple of a tick, rounding can make that
// one tick too early; CRIU and the runtimes choose whole seconds for new namespaces.)
func (r Ref) MarshalJSON() ([]byte, error) {
	offset, err := bootOffset()
	if err != nil {
		return nil, err
	}
	r.Start = shift(r.Start, -offset)
	return json.Marshal(storedRef(r))
}

// UnmarshalJSON is the inverse of MarshalJSON, in whichever time namespace it is called.
func (r *Ref) UnmarshalJSON(data []byte) error {
	offset, err := bootOffset()
	if err != nil {
		return err
	}
	s := storedRef(*r)
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	*r = Ref(s)
	r.Start = shift(r.Start, offset)
	return nil
}

// shift adds an offset to a start time in ticks. Processes are meant that started within
// the reader's namespace or not long before: to the others the kernel gives a number
// that has wrapped around.
func shift(start uint64, by time.Duration) uint64 {
	if by == 0 {
		return start
	}
	return (start*uint64(tick) + uint64(by)) / uint64(tick)
}

// bootOffset returns by how much this process's CLOCK_BOOTTIME is ahead of the host's.
var bootOffset = sync.OnceValues(func() (time.Duration, error) {
	own, err := os.Readlink("/proc/self/ns/time")
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil // a kernel without time namespaces
	}
	if err != nil {
		return 0, fmt.Errorf("find our time namespace: %w", err)
	}
	// The file with the offsets is about the namespace that children will be in.
	if children, err := os.Readlink("/proc/self/ns/time_for_children"); err != nil || children != own {
		return 0, errors.Join(err, code.New(code.TimeNS, "this process is in another time namespace than its children, so the host's start times cannot be told: start it anew (unshare --time --fork)"))
	}
	data, err := os.ReadFile("/proc/self/timens_offsets")
	if err != nil {
		return 0, fmt.Errorf("read the offsets of our time namespace: %w", err)
	}
	return parseBootOffset(string(data))
})

// parseBootOffset finds the line "boottime SECONDS NANOSECONDS" of
// /proc/PID/timens_offsets.
func parseBootOffset(data string) (time.Duration, error) {
	for line := range strings.Lines(data) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "boottime" {
			continue
		}
		sec, err1 := strconv.ParseInt(f[1], 10, 64)
		nsec, err2 := strconv.ParseInt(f[2], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return 0, fmt.Errorf("malformed time namespace offset %q: %w", line, err)
		}
		return time.Duration(sec)*time.Second + time.Duration(nsec), nil
	}
	return 0, code.New(code.TimeNS, fmt.Sprintf("no offset of the clock boottime in %q", data))
}
