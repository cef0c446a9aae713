// SPDX-License-Identifier: Apache-2.0

package proc

import "testing"

func TestCgroupDir(t *testing.T) {
	const mounts = `25 24 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
28 25 0:25 /pod1 /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw
malformed
`
	for _, tc := range []struct{ controllers, path, want string }{
		{"cpu,cpuacct", "/a/b", "/sys/fs/cgroup/cpu,cpuacct/a/b"},
		{"cpuacct", "/", "/sys/fs/cgroup/cpu,cpuacct"},
		{"name=systemd", "/x", "/sys/fs/cgroup/systemd/x"},
		{"", "/pod1/c", "/sys/fs/cgroup/unified/c"},
		{"", "/other", ""},
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
