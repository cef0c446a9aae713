// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dirFaults are faults of the state directory.
func dirFaults() []*fault {
	steps := []string{"before:pre-dump", "after:pre-dump", "after:network-lock", "after:post-dump", "end:dump", "before:pre-restore", "after:pre-restore"}
	mk := func(name string, m mark, do func(dir string) error) *fault {
		return &fault{
			name: "state directory " + name, steps: steps, harms: true, pairs: true, marks: m,
			strike: func(r *run, at step) (int, bool) {
				err := do(stateDir)
				r.logf("%s: state directory %s: %v", at, name, err)
				return 0, err == nil
			},
		}
	}
	return []*fault{
		mk("full", 0, fillDir),
		mk("read-only", 0, func(dir string) error {
			return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}),
		mk("gone", clearsDir, func(dir string) error {
			entries, err := os.ReadDir(dir)
			for _, e := range entries {
				err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
			return err
		}),
		mk("garbage", clearsDir, func(dir string) error {
			records, err := filepath.Glob(filepath.Join(dir, "*.json"))
			for _, path := range records {
				junk := make([]byte, 200)
				_, _ = rand.Read(junk)
				switch junk[0] % 3 {
				case 0:
					junk = nil
				case 1:
					junk = []byte("{}")
				}
				err = errors.Join(err, os.WriteFile(path, junk, 0o600))
			}
			return err
		}),
	}
}

// fillDir leaves no room in the file system of the state directory, which is small.
func fillDir(dir string) error {
	f, err := os.Create(filepath.Join(dir, fillName))
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 512)); err != nil {
			break
		}
	}
	return nil
}

const fillName = "faults-fill"

// mendDir makes the state directory usable again, as an administrator would before
// calling netfreeze thaw.
func mendDir() {
	_ = unix.Mount("", stateDir, "", unix.MS_REMOUNT, "")
	_ = os.Remove(filepath.Join(stateDir, fillName))
}

// removeDamaged does what netfreeze says of records that nobody can read: they are
// removed where nothing is frozen.
func removeDamaged() {
	records, _ := filepath.Glob(filepath.Join(stateDir, "*.json"))
	for _, path := range records {
		var r struct{ ID string }
		text, err := os.ReadFile(path)
		if err == nil && (json.Unmarshal(text, &r) != nil || r.ID == "") {
			_ = os.Remove(path)
		}
	}
}

// systemFaults are failing system calls, small limits and refusing packet filters.
func systemFaults() []*fault {
	all := []*fault{
		injected("settler", settlerCalls),
		injected("hook", hookCalls),
	}
	for _, l := range []struct {
		name  string
		what  int
		limit func(r *run) uint64
	}{
		{"files", unix.RLIMIT_NOFILE, func(r *run) uint64 { return uint64(6 + r.random.IntN(20)) }},
		{"memory", unix.RLIMIT_AS, func(*run) uint64 { return 1 << 20 }},
		{"file size", unix.RLIMIT_FSIZE, func(*run) uint64 { return 0 }},
		{"processes", unix.RLIMIT_NPROC, func(*run) uint64 { return 0 }},
	} {
		all = append(all, &fault{
			name: "limit of " + l.name, harms: true, pairs: true,
			steps: []string{"after:pre-dump", "after:network-lock", "after:post-dump", "after:pre-restore"},
			strike: func(r *run, at step) (int, bool) {
				pids := settlersOf(at.criu)
				n := l.limit(r)
				for _, pid := range pids {
					err := unix.Prlimit(pid, l.what, &unix.Rlimit{Cur: n, Max: n}, nil)
					r.logf("%s: limit of %s of settler %d is %d: %v", at, l.name, pid, n, err)
				}
				return 0, len(pids) > 0
			},
		})
	}
	refuse := &fault{
		name: "iptables refuses", harms: true, pairs: true,
		steps: []string{"before:pre-dump", "after:pre-dump", "after:network-lock", "after:post-dump", "end:dump", "after:pre-restore"},
		adapt: func(s *scenario) {
			if s.backend == "nftables" {
				s.backend = "iptables-nft"
			}
		},
		strike: func(r *run, at step) (int, bool) {
			r.logf("%s: the iptables programs refuse", at)
			return 0, r.refuseIptables(r.random.IntN(2) == 0) == nil
		},
	}
	return append(all, refuse)
}

// iptablesNames are the programs that the back ends execute.
var iptablesNames = []string{
	"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy", "iptables", "ip6tables",
	"iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore", "ip6tables-legacy-restore",
}

// refuseIptables puts failing programs of the same names before the real ones; once
// has each of them fail a single time.
func (r *run) refuseIptables(once bool) error {
	for _, name := range iptablesNames {
		path := filepath.Join("/usr/local/sbin", name)
		text := "#!/bin/sh\necho 'refused by a fault' >&2\nexit 4\n"
		if once {
			text = fmt.Sprintf("#!/bin/sh\nif [ -e %s.done ]; then exec /usr/sbin/%s \"$@\"; fi\n: >%s.done\necho 'refused by a fault' >&2\nexit 4\n", path, name, path)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func mendIptables() {
	for _, name := range iptablesNames {
		_ = os.Remove(filepath.Join("/usr/local/sbin", name))
		_ = os.Remove(filepath.Join("/usr/local/sbin", name+".done"))
	}
}

// The system calls that are made to fail; not close, which always does its work, even
// where it returns an error. Those with a question mark do not exist on
// every architecture.
var (
	settlerCalls = strings.Fields(`openat write ?rename renameat unlinkat ?unlink mkdirat flock sendto sendmsg recvfrom recvmsg
		setsockopt getsockopt socket bind listen accept4 kill pidfd_open pidfd_getfd pidfd_send_signal setns clone clone3
		execve pipe2 fsync mmap ftruncate fstat ?newfstatat read getdents64 readlinkat ppoll ?poll ?epoll_pwait dup3 ioctl`)
	hookCalls = strings.Fields(`socket setsockopt connect sendto recvfrom execve ?open openat read pipe2 clone ?vfork`)
	errnames  = []string{"EIO", "ENOSPC", "EPERM", "ENOMEM", "EAGAIN", "EMFILE"}
)

// injected returns the fault that system calls of one of our programs fail, by
// strace, which runs beside it from its first instruction. The steps are the calls;
// whether they fail once, for good, or are slow is left to chance.
func injected(program string, calls []string) *fault {
	f := &fault{name: "inject " + program, harms: true, pairs: true, marks: slows}
	for _, c := range calls {
		f.steps = append(f.steps, strings.TrimPrefix(c, "?"))
	}
	f.strike = func(*run, step) (int, bool) { return 0, false }
	f.set = func(r *run) error {
		call := r.first.step
		if r.first.fault != f {
			call = r.second.step
		}
		n := 1 + r.random.IntN(6)
		if r.random.IntN(2) == 0 {
			n += r.random.IntN(40)
		}
		what := "error=" + errnames[r.random.IntN(len(errnames))]
		when := fmt.Sprint(n)
		switch r.random.IntN(4) {
		case 0:
			when += "+"
		case 1:
			what, when = "delay_enter="+fmt.Sprint(int64(r.linger/4/time.Microsecond)), when+"+"
		}
		expr := fmt.Sprintf("inject=?%s:%s:when=%s", call, what, when)
		r.logf("strace of the %s: %s", program, expr)
		return r.wrap(program, "?"+call, expr)
	}
	return f
}
