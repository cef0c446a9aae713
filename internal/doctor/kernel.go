// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// checkKernel tries what we need of the kernel in a network namespace that is made for
// that and thrown away.
func checkKernel(h *Host) []Finding {
	if !h.live() {
		return nil
	}
	ns, err := netns.New()
	if err != nil {
		return []Finding{fails("kernel", "run it as root, on a kernel with CONFIG_NET_NS", "%v", err)}
	}
	defer ns.Close()
	isolated, err := ns.Isolate()
	if err != nil {
		return []Finding{fails("kernel", "run it as root of the host, in the host's pid namespace", "%v", err)}
	}
	kind := backend.Auto
	if c, err := config.Load(config.Path); err == nil {
		kind = c.Backend
	}
	found := checkBackends(isolated, kind)
	if err := ns.Do(rewrite); err != nil {
		found = append(found, note("nf_tables", "", "cannot rewrite packets (payload write): %v", err))
	}
	return append(found, checkCalls(ns)...)
}

// checkBackends tries each back end. wanted is what the configuration asks for.
func checkBackends(ns *netns.Isolated, wanted backend.Kind) (found []Finding) {
	works := map[backend.Kind]bool{}
	for _, k := range []backend.Kind{backend.NFTables, backend.IPTablesNFT, backend.IPTablesLegacy} {
		sealed, err := try(ns, k)
		works[k] = err == nil
		switch {
		case errors.Is(err, exec.ErrNotFound):
			found = append(found, ok(string(k), "is not installed: %v", err))
		case err != nil:
			found = append(found, note(string(k), "", "does not work: %v", err))
		case errors.Is(sealed, rules.ErrPacketSockets):
			found = append(found, note(string(k), "policy isolate, for programs with packet sockets, needs Linux 5.16 with CONFIG_NETFILTER_EGRESS", "works; but %v", sealed))
		case sealed != nil:
			found = append(found, warn(string(k), "", "works, but a freeze cannot be sealed: %v", sealed))
		default:
			found = append(found, ok(string(k), "works"))
		}
	}
	f, err := rules.Open(ns, wanted)
	if err != nil {
		return append(found, fails("back end "+string(wanted), backendRemedy(wanted, works), "every dump fails: %v", err))
	}
	defer f.Close()
	if wanted == backend.Auto {
		return append(found, ok("back end auto", "chooses %s", f.Backend()))
	}
	if !works[f.Backend()] {
		return append(found, fails("back end "+string(wanted), backendRemedy(wanted, works), "every dump fails: it does not work here"))
	}
	return append(found, ok("back end "+string(wanted), "netfreeze.toml asks for it; it works"))
}

func backendRemedy(wanted backend.Kind, works map[backend.Kind]bool) string {
	for _, k := range backend.All() {
		if works[k] && wanted != backend.Auto {
			return fmt.Sprintf("set backend = %q in %s, which works here", k, config.Path)
		}
	}
	return "load nf_tables (modprobe nf_tables), or install iptables"
}

// try freezes and thaws a namespace by one back end. The error is why that fails, sealed
// why the freeze cannot be sealed.
func try(ns *netns.Isolated, k backend.Kind) (sealed, err error) {
	f, err := rules.Open(ns, k)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	err = errors.Join(f.Prepare(time.Second), f.Freeze(time.Minute))
	if err == nil {
		sealed = f.Seal(0)
		var st rules.State
		if st, err = f.State(); err == nil && (!st.Frozen || st.Left <= 0) {
			err = code.New(code.Kernel, "the kernel does not say that it is frozen, and for how long")
		}
	}
	return sealed, errors.Join(err, f.Thaw())
}

// checkCalls tries the system calls that we need beside the packet filter's.
func checkCalls(ns *netns.Namespace) (found []Finding) {
	self, err := proc.Open(os.Getpid())
	if err != nil {
		return []Finding{fails("pidfd_open", "use Linux 5.3 or newer", "every dump fails: %v", err)}
	}
	defer self.Close()
	for _, try := range []struct {
		what, need string
		do         func() error
	}{
		{"pidfd_getfd", "use Linux 5.6 or newer, and let root trace processes (CAP_SYS_PTRACE)", func() error { return getfd(self) }},
		{"TCP_REPAIR", "use a kernel with CONFIG_CHECKPOINT_RESTORE", func() error { return ns.Do(repair) }},
		{"/proc/PID/task/TID/children", "use a kernel with CONFIG_PROC_CHILDREN", func() error {
			_, err := os.Stat("/proc/thread-self/children")
			return err
		}},
		{"tcp_diag", "load tcp_diag (modprobe tcp_diag), or use a kernel with CONFIG_INET_TCP_DIAG", func() error {
			return ns.Do(func() error { _, err := tcp.List(); return err })
		}},
	} {
		if err := try.do(); err != nil {
			found = append(found, fails(try.what, try.need, "every dump fails: %v", err))
		}
	}
	if err := ns.Do(destroy); err != nil {
		found = append(found, warn("INET_DIAG_DESTROY", "use a kernel with CONFIG_INET_DIAG_DESTROY, or restore into new namespaces only",
			"sockets that a dumped tree has left behind cannot be removed before a restore: %v", err))
	}
	if cookie, err := ns.Cookie(); err != nil || cookie == 0 {
		found = append(found, warn("SO_NETNS_COOKIE", "use Linux 5.14 or newer", "a namespace that has gone cannot be told from a new one with its inode"))
	}
	if !proc.KeepsExitStatus() {
		found = append(found, note("exit status", "use Linux 6.15 or newer, or see docs/limits.md", "this kernel forgets how CRIU has ended; stats-dump tells it instead"))
	}
	if len(found) == 0 {
		found = []Finding{ok("kernel", "has every other call that is needed: %s", release())}
	}
	return found
}

func release() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// getfd duplicates a descriptor of this process.
func getfd(self *proc.Process) error {
	fd, err := self.Dup(self.FD())
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// repair switches TCP_REPAIR on for a new socket.
func repair() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) // it was never connected
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
}

// destroy has the kernel remove a listening socket that it has made itself.
func destroy() error {
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	l, err := plain.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	socks, err := tcp.List()
	if err != nil {
		return err
	}
	for _, s := range socks {
		if s.State == tcp.Listen {
			return tcp.Destroy(s)
		}
	}
	return code.New(code.Kernel, "the kernel does not list a listening socket")
}
