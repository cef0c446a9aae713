// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// startBus starts a message bus of the test's own, and returns its address.
func startBus(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Fatalf("%v (testdata/lab/deps installs it)", err)
	}
	config := filepath.Join(t.TempDir(), "bus.conf")
	err = os.WriteFile(config, fmt.Appendf(nil, `<busconfig>
<listen>unix:path=%s</listen>
<auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy>
</busconfig>
`, filepath.Join(filepath.Dir(config), "socket")), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	bus := exec.Command(program, "--config-file="+config, "--nofork", "--print-address")
	bus.Stderr = t.Output()
	out, err := bus.StdoutPipe()
	if err == nil {
		err = bus.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = bus.Process.Kill(), bus.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(address)
}

// manager is what stands in for systemd on the bus.
type manager struct {
	asked  chan call
	answer *dbus.Error
}

// call is what StartTransientUnit was called with, and by whom.
type call struct {
	Unit, Mode string
	Properties []property
	Auxiliary  []auxiliaryUnit
	Sender     dbus.Sender
}

// StartTransientUnit has the signature of systemd's: ssa(sv)a(sa(sv)) → o.
func (m *manager) StartTransientUnit(
	unit, mode string, properties []property, auxiliary []auxiliaryUnit, sender dbus.Sender,
) (dbus.ObjectPath, *dbus.Error) {
	m.asked <- call{unit, mode, properties, auxiliary, sender}
	return "/org/freedesktop/systemd1/job/1", m.answer
}

// startManager puts a manager on the bus.
func startManager(t *testing.T, address string, answer *dbus.Error) (*manager, *dbus.Conn) {
	t.Helper()
	bus, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bus.Close() })
	m := &manager{asked: make(chan call, 1), answer: answer}
	if err := bus.Export(m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.RequestName("org.freedesktop.systemd1", 0); err != nil {
		t.Fatal(err)
	}
	return m, bus
}

// scopeName is the scope that this process asks for.
func scopeName(t *testing.T) string {
	t.Helper()
	st, err := proc.ReadStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("netfreeze-%d-%d.scope", os.Getpid(), st.Start)
}

// TestScope promises that systemd is asked for a transient scope of the settler's own,
// and that this counts as done when the settler is seen to be there, not before.
func TestScope(t *testing.T) {
	address := startBus(t)
	m, bus := startManager(t, address, nil)
	unit := scopeName(t)
	looks := 0
	cgroups := func() ([]byte, error) {
		if looks++; looks < 3 {
			return []byte("0::/system.slice/podman.service\n"), nil
		}
		return []byte("1:name=systemd:/system.slice/podman.service\n0::/system.slice/" + unit + "\n"), nil
	}
	if err := enterScope(t.Context(), address, "42@7", cgroups); err != nil {
		t.Fatal(err)
	}
	if looks != 3 {
		t.Errorf("done after %d looks at the control groups", looks)
	}
	got := <-m.asked
	want := call{
		Unit: unit, Mode: "fail", Sender: got.Sender, Auxiliary: []auxiliaryUnit{},
		Properties: []property{
			{"PIDs", dbus.MakeVariant([]uint32{0})},
			{"Description", dbus.MakeVariant("netfreeze settler of CRIU 42@7")},
			{"CollectMode", dbus.MakeVariant("inactive-or-failed")},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// 0 is the sender: systemd asks the bus or the socket for its pid, and so do we, of
	// a connection that is still there.
	var pid uint32
	err := bus.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixProcessID", 0, bus.Names()[0]).Store(&pid)
	if err != nil || int(pid) != os.Getpid() {
		t.Errorf("the bus takes our pid for %d (%v)", pid, err)
	}
}

// TestScopeFails promises that a settler that systemd does not move learns so within the
// time-out, whatever the reason.
func TestScopeFails(t *testing.T) {
	elsewhere := func() ([]byte, error) { return []byte("0::/system.slice/podman.service\n"), nil }
	const limit = 300 * time.Millisecond
	for _, tc := range []struct {
		name, want string
		late       bool // the time-out ends it
		bus        func(t *testing.T) string
	}{
		{"no bus", "connect to the system's message bus", false, func(*testing.T) string { return "unix:path=/nonexistent" }},
		{"no systemd on the bus", "org.freedesktop.systemd1", false, startBus},
		{"refused", "the caller may not", false, func(t *testing.T) string {
			t.Helper()
			address := startBus(t)
			startManager(t, address, dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"the caller may not"}))
			return address
		}},
		{"queued but not done", "has not moved the settler", true, func(t *testing.T) string {
			t.Helper()
			address := startBus(t)
			startManager(t, address, nil)
			return address
		}},
		{"a bus that says nothing", "connect to the system's message bus", true, func(t *testing.T) string {
			t.Helper()
			path := filepath.Join(t.TempDir(), "socket")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			return "unix:path=" + path
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			address := tc.bus(t)
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			begun := time.Now()
			err := enterScope(ctx, address, "42@7", elsewhere)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want something with %q", err, tc.want)
			}
			if errors.Is(err, context.DeadlineExceeded) != tc.late {
				t.Errorf("got %v", err)
			}
			if took := time.Since(begun); took > 10*limit {
				t.Errorf("it took %s", took)
			}
		})
	}
}
