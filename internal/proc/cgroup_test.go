// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestCgroupDir(t *testing.T) {
	const mounts = `25 24 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
28 25 0:25 /pod1 /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw
29 25 0:26 / /sys/fs/cgroup/a\040b rw - cgroup cgroup rw,memory
malformed
`
	for _, tc := range []struct{ controllers, path, want string }{
		{"cpu,cpuacct", "/a/b", "/sys/fs/cgroup/cpu,cpuacct/a/b"},
		{"cpuacct", "/", "/sys/fs/cgroup/cpu,cpuacct"},
		{"name=systemd", "/x", "/sys/fs/cgroup/systemd/x"},
		{"", "/pod1/c", "/sys/fs/cgroup/unified/c"},
		{"", "/pod1", "/sys/fs/cgroup/unified"},
		{"", "/other", ""},
		{"", "/pod10/c", ""}, // another group, whose name begins alike
		{"", "/pod1/../../../etc", ""},
		{"memory", "/m", "/sys/fs/cgroup/a b/m"},
		{"pids", "/a", ""},
	} {
		if got := cgroupDir(mounts, tc.controllers, tc.path); got != tc.want {
			t.Errorf("%q %q: got %q, want %q", tc.controllers, tc.path, got, tc.want)
		}
	}
}

func TestJoinCgroups(t *testing.T) {
	cmd := start(t, "sleep", "60")
	if err := JoinCgroups(cmd.Process.Pid); err != nil {
		t.Errorf("to the groups where we are: %v", err)
	}
	if err := JoinCgroups(1 << 30); err == nil {
		t.Error("joined the groups of no process")
	}
}

// FuzzCgroupDir: no line of a control group file leads out of the mounted hierarchy.
func FuzzCgroupDir(f *testing.F) {
	f.Add("26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n", "4:cpuacct:/a/b\n")
	f.Add("28 25 0:25 /pod1 /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n", "0::/pod1/c\n")
	f.Fuzz(func(t *testing.T, mountinfo, cgroup string) {
		points := map[string]bool{}
		for line := range strings.Lines(mountinfo) {
			if m, ok := ParseMount(line); ok {
				points[filepath.Clean(m.Point)] = true
			}
		}
		for controllers, path := range parseCgroups(cgroup) {
			dir := filepath.Clean(cgroupDir(mountinfo, controllers, path))
			if dir == "." && !points["."] {
				continue // not mounted
			}
			up := dir
			for !points[up] && up != filepath.Dir(up) {
				up = filepath.Dir(up)
			}
			if !points[up] {
				t.Errorf("%q of %q, mounts %q: %q is below none of them", path, controllers, mountinfo, dir)
			}
		}
	})
}
