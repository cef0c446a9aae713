// SPDX-License-Identifier: Apache-2.0

// Package privilege tells whether this process may do what the settler and the
// commands have to: enter other network namespaces, change their packet filters, and
// take sockets from other processes.
package privilege

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// ErrRootless says that the process is not root of the host.
var ErrRootless = code.New(code.Root, "rootless is not supported: run CRIU, the container runtime and netfreeze as root of the host")

// initUserNS is the inode number of the initial user namespace, which is the same on
// every machine (PROC_USER_INIT_INO in the kernel's include/linux/proc_ns.h).
const initUserNS = 0xEFFFFFFD

// needed are the capabilities without which nothing works, and what each is for.
var needed = []struct {
	bit  int
	name string
}{
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},   // setns(2)
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},   // packet filters, TCP_REPAIR
	{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE"}, // pidfd_getfd(2), /proc/PID/ns
}

// Check returns an error that wraps ErrRootless and says what is missing, on one line,
// if the process is not uid 0, or is in a user namespace (where uid 0 is root of
// nothing that belongs to the host), or lacks a capability. The check comes early, so
// that nothing is half done when the kernel refuses the first step that matters.
func Check() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("the effective uid is %d: %w", uid, ErrRootless)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &st); err != nil {
		// A kernel that is built without user namespaces has no such file.
		if !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("look up our user namespace: %w", err)
		}
	} else if st.Ino != initUserNS {
		return fmt.Errorf("this process is in a user namespace: %w", ErrRootless)
	}
	if self, err := os.Readlink("/proc/self"); err != nil {
		return fmt.Errorf("look up our own number in /proc: %w", err)
	} else if self != strconv.Itoa(os.Getpid()) {
		return code.New(code.Root, "this process is in another pid namespace than that of /proc, and would take the wrong processes by the numbers there: run it in the host's")
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // version 3 has 64 bits, in two words
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("look up our capabilities: %w", err)
	}
	var missing []string
	for _, c := range needed {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("no %s: %w", strings.Join(missing, ", "), ErrRootless)
	}
	return nil
}
