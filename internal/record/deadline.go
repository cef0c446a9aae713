// SPDX-License-Identifier: Apache-2.0

package record

import (
	"os"
	"strings"
	"sync"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// Boot is a moment on a clock that nobody can set: so long after the boot ID. The
// wall clock is for people, and for a record that has nothing else.
type Boot struct {
	ID    string        `json:"id"`    // of the boot, as in /proc/sys/kernel/random/boot_id
	Until time.Duration `json:"until"` // since then, in nanoseconds (CLOCK_BOOTTIME)
}

// ExpireIn has the record's time to live end after d from now.
func (r *Record) ExpireIn(d time.Duration) {
	r.Until, r.Boot = time.Now().Add(d), Boot{}
	if now, err := proc.SinceBoot(); err == nil && bootID() != "" {
		r.Boot = Boot{ID: bootID(), Until: now + d}
	}
}

// Left returns how much is left of the record's time to live; it is negative once that
// is over. Where the record has a Boot of this boot, setting the wall clock makes no
// difference.
func (r *Record) Left() time.Duration {
	if r.Boot.ID != "" && r.Boot.ID == bootID() {
		if now, err := proc.SinceBoot(); err == nil {
			return r.Boot.Until - now
		}
	}
	return time.Until(r.Until)
}

// Expired reports whether the record's time to live is over.
func (r *Record) Expired() bool { return r.Left() <= 0 }

// Ends returns when the record's time to live ends, as the wall clock goes now.
func (r *Record) Ends() time.Time { return time.Now().Add(r.Left()) }

// bootID identifies this boot; it is "" if the kernel does not tell.
var bootID = sync.OnceValue(func() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
})
