// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"strings"
	"testing"
)

func TestParseMount(t *testing.T) {
	for _, tc := range []struct {
		line string
		want Mount
	}{
		{
			"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n",
			Mount{"/mnt1", "/mnt2", "ext3", "rw,errors=continue"},
		},
		{`500 24 0:4 net:[4026532248] /run/a\040b\134c rw - nsfs nsfs rw`, Mount{"net:[4026532248]", `/run/a b\c`, "nsfs", "rw"}},
		{`1 2 3 /\9x\04 /\377\400 rw - t s o`, Mount{`/\9x\04`, "/\xff\\400", "t", "o"}},
		{"1 2 3 / /x rw t s o", Mount{}},
		{"1 2 3 / /x - t s o", Mount{}},
		{"1 2 3 / /x rw - t s", Mount{}},
		{" - ", Mount{}},
		{"", Mount{}},
	} {
		got, ok := ParseMount(tc.line)
		if got != tc.want || ok != (tc.want != Mount{}) {
			t.Errorf("%q: got %+v, %v", tc.line, got, ok)
		}
	}
}

func FuzzParseMount(f *testing.F) {
	f.Add("26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct")
	f.Add(`1 2 3 net:[4026532248] /run/a\040b\134 rw - nsfs nsfs rw`)
	f.Fuzz(func(t *testing.T, line string) {
		m, ok := ParseMount(line)
		if ok != (m.Root != "" && m.Point != "" && m.Type != "" && m.Options != "") {
			t.Errorf("%q: %+v, %v", line, m, ok)
		}
		if ok && (!strings.Contains(line, `\`) && !strings.Contains(line, m.Point) || len(m.Point) > len(line)) {
			t.Errorf("%q: mount point %q", line, m.Point)
		}
	})
}
