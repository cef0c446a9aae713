// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// descriptor is an open file of a task.
type descriptor struct {
	task *proc.Process
	fd   int
	link string // where /proc/PID/fd/N leads to
}

// socketInode returns the inode if it is a socket, and 0 otherwise.
func (d descriptor) socketInode() uint32 {
	number, isSocket := strings.CutPrefix(d.link, "socket:[")
	if !isSocket {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 32) // the kernel's own text
	return uint32(n)
}

// listDescriptors reads where the tree's descriptors lead to. Tasks share tables of
// descriptors, and files: each file is in it once per task.
func (s *Subject) listDescriptors() {
	for _, p := range s.tree {
		dir := fmt.Sprintf("/proc/%d/fd", p.PID)
		entries, err := os.ReadDir(dir)
		if err != nil {
			if !isGone(err) {
				s.fdErrs = append(s.fdErrs, err)
			}
			continue
		}
		for _, e := range entries {
			link, err := os.Readlink(filepath.Join(dir, e.Name()))
			fd, err2 := strconv.Atoi(e.Name())
			if err == nil && err2 == nil {
				s.fds = append(s.fds, descriptor{p, fd, link})
			}
		}
	}
}

// at names a descriptor in a message.
func (s *Subject) at(d descriptor) string { return fmt.Sprintf("%s, fd %d", s.name(d.task.PID), d.fd) }

// dumpable are the anonymous inodes that CRIU 4.2 can dump (dump_one_file in its
// criu/files.c), by the beginning of their names.
var dumpable = []string{
	"[eventfd", "[eventpoll]", "inotify", "[fanotify]", "[signalfd]", "[timerfd]", "[pidfd]", "bpf-map",
}

// Devices: CRIU dumps those with the major number of memory devices, terminals, and
// of the others net/tun and autofs alone (dump_chrdev in its criu/files.c).
const (
	miscMajor   = 10
	tunMinor    = 200
	autofsMinor = 235
)

// checkFiles looks for open files that CRIU cannot dump. Sockets have a check of their
// own.
func checkFiles(s *Subject) (found []Finding) {
	for _, err := range s.fdErrs {
		found = append(found, warn(s.name(s.root().PID), "run it as root of the host", "its files cannot be listed: %v", err))
	}
	for _, d := range s.fds {
		if name, anonymous := strings.CutPrefix(d.link, "anon_inode:"); anonymous {
			if !hasPrefixOf(name, dumpable) {
				found = append(found, fails(s.at(d), remedyFor(name), "CRIU cannot dump %s", printable.Text(name)))
			}
			continue
		}
		if !strings.HasPrefix(d.link, "/dev/") {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", d.task.PID, d.fd), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
			continue
		}
		minor := unix.Minor(uint64(st.Rdev))                                                       //nolint:unconvert // its width depends on the architecture
		if unix.Major(uint64(st.Rdev)) == miscMajor && minor != tunMinor && minor != autofsMinor { //nolint:unconvert // see above
			found = append(found, fails(s.at(d), "have the program close it before the dump, or use a plugin of CRIU for that device", "CRIU cannot dump the device %s", printable.Text(d.link)))
		}
	}
	if len(found) == 0 {
		return []Finding{ok("files", "none of %d open files is of a kind that CRIU is known not to dump", len(s.fds))}
	}
	return found
}

func hasPrefixOf(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// remedyFor says how to do without a file of this kind.
func remedyFor(name string) string {
	switch name {
	case "[io_uring]":
		return "run the program without io_uring (libuv: UV_USE_IO_URING=0; for all: sysctl kernel.io_uring_disabled=2 before it starts)"
	case "[userfaultfd]":
		return "have the program close it before the dump"
	}
	return "have the program close it before the dump"
}

// checkTasks looks for tasks that CRIU cannot stop.
func checkTasks(s *Subject) (found []Finding) {
	for _, p := range s.tree {
		st, err := proc.ReadStat(p.PID)
		if err != nil {
			continue // it has ended
		}
		if tracer := p.Tracer(); tracer != 0 {
			other, _ := proc.ReadStat(tracer) // for its name
			found = append(found, fails(s.name(p.PID), fmt.Sprintf("end the tracer (pid %d)", tracer),
				"it is traced by pid %d (%s): CRIU cannot stop it", tracer, printable.Text(other.Comm)))
		}
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.PID))
		switch {
		case st.State == 'Z' && len(threads) > 1:
			found = append(found, fails(s.name(p.PID), "end it", "its first thread has ended while others run, which CRIU cannot dump"))
		case st.State == 'D' && staysD(p):
			found = append(found, warn(s.name(p.PID), "find out what it waits for (cat /proc/"+strconv.Itoa(p.PID)+"/wchan)",
				"it waits in the kernel and cannot be interrupted (state D): CRIU gives up after its --timeout, 10 s by default"))
		}
	}
	if len(found) > 0 {
		return found
	}
	return []Finding{ok("tasks", "%d processes, which CRIU can stop", len(s.tree))}
}

// staysD reports whether a process is in state D at each of some looks.
func staysD(p *proc.Process) bool {
	for range 10 {
		if p.Ended(pollStep) {
			return false
		}
		if st, err := proc.ReadStat(p.PID); err != nil || st.State != 'D' {
			return false
		}
	}
	return true
}

// with calls f with a duplicate of the descriptor. What has been closed since is left out.
func (d descriptor) with(f func(fd int)) error {
	dup, err := d.task.Dup(d.fd)
	if err != nil {
		if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) {
			return nil
		}
		return err
	}
	f(dup)
	return unix.Close(dup)
}
