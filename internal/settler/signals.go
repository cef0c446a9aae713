// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"os/signal"

	"golang.org/x/sys/unix"
)

// ignoreSignals makes the settler survive whatever is sent to its control group or its
// session short of SIGKILL and SIGSTOP: systemd sends SIGTERM to all processes of the
// unit that it stops, and CRIU's caller may be one of them. A settler that ended then
// would leave tasks stopped that nobody wakes.
//
// Programs that the settler executes inherit this (signal(7)), and that is as well: an
// iptables that changes rules is not to be ended half way either. They are bounded in
// time, by SIGKILL. What is not ignored:
//   - SIGCHLD: the kernel would reap those programs before their exit code is read;
//   - SIGURG, SIGPROF: Go's runtime uses them, and survives those of others;
//   - SIGCONT, SIGWINCH: they do nothing by default;
//   - SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGSTKFLT: a program's own faults;
//   - 32 to 34, which the C library and Go's runtime keep for themselves.
func ignoreSignals() {
	for _, sig := range []unix.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTRAP, unix.SIGABRT, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGPIPE, unix.SIGALRM, unix.SIGTERM, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGXCPU,
		unix.SIGXFSZ, unix.SIGVTALRM, unix.SIGIO, unix.SIGPWR,
	} {
		signal.Ignore(sig)
	}
	for sig := firstFreeSignal; sig <= lastSignal; sig++ {
		signal.Ignore(sig)
	}
}

// The real-time signals that are left to programs.
const (
	firstFreeSignal = unix.Signal(35)
	lastSignal      = unix.Signal(64)
)
