// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// roleEnv makes this test binary a process that says what Check does; its value is a
// capability to give up first, or "" for none.
const roleEnv = "PRIVILEGE_TEST_ROLE"

func TestMain(m *testing.M) {
	if drop, ok := os.LookupEnv(roleEnv); ok {
		if err := check(drop); err != nil {
			fmt.Print(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// check gives up a capability and calls Check. Capabilities belong to a thread.
func check(drop string) error {
	runtime.LockOSThread()
	for _, c := range needed {
		if c.name != drop {
			continue
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		data[c.bit/32].Effective &^= 1 << (c.bit % 32)
		if err := unix.Capset(&header, &data[0]); err != nil {
			return err
		}
	}
	return Check()
}

// said runs this test binary with these attributes, and returns what Check says there.
func said(t *testing.T, drop string, attr *syscall.SysProcAttr) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+drop)
	cmd.SysProcAttr = attr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestCheck promises that a process without the host's privileges is told so, and the
// remedy, on one line, and that root of the host is not refused.
func TestCheck(t *testing.T) {
	if err := Check(); errors.Is(err, ErrRootless) {
		t.Skipf("the test needs root: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	ids := func(size int) []syscall.SysProcIDMap { return []syscall.SysProcIDMap{{Size: size}} }
	// A namespace's ids may be mapped like the host's: the map tells nothing.
	const all = 1<<32 - 1
	for _, tc := range []struct {
		name, drop string
		attr       syscall.SysProcAttr
		want       string
	}{
		{"user", "", syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}, "the effective uid is 65534: "},
		{"root of a user namespace", "", syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids(1), GidMappings: ids(1),
		}, "this process is in a user namespace: "},
		{"root of a user namespace with all ids", "", syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids(all), GidMappings: ids(all),
		}, "this process is in a user namespace: "},
		{"no CAP_NET_ADMIN", "CAP_NET_ADMIN", syscall.SysProcAttr{}, "no CAP_NET_ADMIN: "},
		{"no CAP_SYS_PTRACE", "CAP_SYS_PTRACE", syscall.SysProcAttr{}, "no CAP_SYS_PTRACE: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := said(t, tc.drop, &tc.attr)
			if got != tc.want+ErrRootless.Error() || strings.ContainsRune(got, '\n') {
				t.Errorf("got %q", got)
			}
		})
	}
	if got := said(t, "", &syscall.SysProcAttr{}); got != "" {
		t.Errorf("root is refused: %s", got)
	}
}
