// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

const (
	// systemdDir exists if systemd runs as pid 1 (sd_booted(3)).
	systemdDir = "/run/systemd/system"
	// systemBus is the address of the system's message bus (D-Bus specification,
	// "Well-known Message Bus Instances").
	systemBus = "unix:path=/run/dbus/system_bus_socket"
	// scopeTimeout is how long systemd may take to move the settler. The actions do
	// not wait for it.
	scopeTimeout = 5 * time.Second
)

// leaveCaller moves the settler away from CRIU and its caller, as far as that can be
// done: out of the container's control groups, and where systemd is into a scope of
// its own, so that it does not end with the unit that CRIU's caller belongs to. It is
// run beside the first action, since it takes a while. A failure changes nothing else.
func (s *settler) leaveCaller() {
	if err := s.leaveCgroups(); err != nil {
		s.env.Log.Debug(err)
	}
	if _, err := os.Stat(systemdDir); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scopeTimeout)
	defer cancel()
	if err := enterScope(ctx, systemBus, s.id, ownCgroups); err != nil {
		s.env.Log.Warnf("the settler stays in the control group of CRIU's caller, and ends if that is killed as a whole: %v", code.Any(err))
	}
}

// leaveCgroups moves the settler to the control groups of whoever called CRIU.
// On a restore runc has CRIU in the container's own (criuApplyCgroups), where
// the settler would be paused and killed with it, and would keep it from being
// removed. This comes before the scope: with version 1, systemd moves a process in
// those hierarchies only that it manages, and the freezer is none of them.
func (s *settler) leaveCgroups() error {
	st, err := proc.ReadStat(s.env.CRIU.PID)
	if err != nil {
		return err
	}
	if st.PPID <= 1 { // pid 1 is not the caller, it adopted CRIU
		return nil
	}
	return proc.JoinCgroups(st.PPID)
}

// property is one of a unit's properties, as StartTransientUnit takes it: (sv).
type property struct {
	Name  string
	Value dbus.Variant
}

// auxiliaryUnit is another unit for StartTransientUnit to make: (sa(sv)). We have none.
type auxiliaryUnit struct {
	Name       string
	Properties []property
}

// enterScope asks systemd, by the message bus at address, to move this process into a
// transient scope of its own, netfreeze-PID-START.scope, and waits until the process
// sees itself there: systemd answers when the job is queued. The description names
// the CRIU process called id. The function cgroups returns this process's control
// groups, as in /proc/self/cgroup. See org.freedesktop.systemd1(5), systemd.scope(5).
func enterScope(ctx context.Context, address, id string, cgroups func() ([]byte, error)) error {
	self, err := proc.ReadStat(os.Getpid())
	if err != nil {
		return err
	}
	unit := fmt.Sprintf("netfreeze-%d-%d.scope", os.Getpid(), self.Start)
	if err := startScope(ctx, address, unit, "netfreeze settler of CRIU "+id); err != nil {
		return fmt.Errorf("have systemd start %s: %w", unit, err)
	}
	const pause = 10 * time.Millisecond
	for {
		groups, err := cgroups()
		if err != nil {
			return err
		}
		for line := range bytes.Lines(groups) {
			if strings.HasSuffix(strings.TrimSpace(string(line)), "/"+unit) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("systemd has not moved the settler into %s: %w", unit, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// startScope calls StartTransientUnit, and returns when systemd has queued the job.
func startScope(ctx context.Context, address, unit, description string) error {
	// The connection is closed, and the call with it, when ctx is over.
	bus, err := dbus.Connect(address, dbus.WithContext(ctx))
	if err != nil {
		return errors.Join(fmt.Errorf("connect to the system's message bus: %w", err), ctx.Err())
	}
	defer bus.Close()
	properties := []property{
		// 0 is the caller, as the bus knows it. Our own number would be another
		// process's for systemd if we were in a pid namespace.
		{"PIDs", dbus.MakeVariant([]uint32{0})},
		{"Description", dbus.MakeVariant(description)},
		{"CollectMode", dbus.MakeVariant("inactive-or-failed")}, // nothing is kept of it, however it ends
	}
	manager := bus.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	return manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.StartTransientUnit", 0,
		unit, "fail", properties, []auxiliaryUnit{}).Err
}

// ownCgroups returns this process's control groups.
func ownCgroups() ([]byte, error) { return os.ReadFile("/proc/self/cgroup") }
