// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// checkSystem looks at settings of the machine that get in the way.
func checkSystem(h *Host) (found []Finding) {
	if !h.live() {
		return nil
	}
	found = append(found, checkConntrack()...)
	for _, conf := range []string{"all", "default"} {
		if sysctl("net/ipv4/conf/"+conf+"/rp_filter") == "1" {
			found = append(found, note("net.ipv4.conf."+conf+".rp_filter", "set it to 2 if peers that come by another interface get no answers after a move",
				"it is strict (1): packets that do not come by the interface on which the answer would leave are dropped"))
			break
		}
	}
	found = append(found, checkStateDir()...)
	if data, err := os.ReadFile("/sys/fs/selinux/enforce"); err == nil && strings.TrimSpace(string(data)) == "1" {
		found = append(found, note("SELinux", "ausearch -m avc names what it refuses", "it is enforcing: it may keep CRIU from executing our scripts, or them from writing to %s", record.Dir))
	}
	if data, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && strings.HasPrefix(string(data), "Y") {
		found = append(found, note("AppArmor", "dmesg | grep apparmor names what it refuses", "it is enabled: a profile of CRIU or of the runtime must allow %s and our programs", record.Dir))
	}
	return found
}

// sysctl returns a setting of the kernel, "" if there is none.
func sysctl(name string) string {
	data, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// checkConntrack looks at how strict the connection tracking of this namespace is: a
// connection that moves here is new to it (nf_conntrack-sysctl in the kernel's docs).
func checkConntrack() []Finding {
	const dir, dotted = "net/netfilter/", "net.netfilter."
	loose, liberal := "nf_conntrack_tcp_loose", "nf_conntrack_tcp_be_liberal"
	if sysctl(dir+loose) == "0" {
		return []Finding{warn(dotted+loose, "sysctl -w "+dotted+loose+"=1",
			"it is 0: a connection that is restored here is INVALID to the connection tracking, and a firewall may drop it")}
	}
	if sysctl(dir+liberal) == "0" {
		return []Finding{note(dotted+liberal, "set it to 1 if a firewall drops packets of restored connections as INVALID", "it is 0, the default: packets out of the window that was seen are INVALID")}
	}
	return nil
}

// Free space in the state directory's file system, in bytes: a record has some
// kilobytes, and some hundred more with thousands of connections.
const (
	scarceSpace = 16 << 20
	tooLittle   = 1 << 20
)

// checkStateDir looks whether records can be written. The directory is made by the first
// dump.
func checkStateDir() (found []Finding) {
	var st unix.Stat_t
	err := unix.Lstat(record.Dir, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		found = append(found, fails(record.Dir, "find out why it cannot be read", "every dump fails: %v", err))
	case st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != 0:
		found = append(found, fails(record.Dir, "remove it", "every dump fails: it is not a directory of root"))
	case st.Mode&0o077 != 0:
		found = append(found, fails(record.Dir, "chmod 0700 "+record.Dir, "every dump fails: its mode is %04o, not 0700", st.Mode&0o777).
			fixedBy("chmod 0700 "+record.Dir, func() (string, error) {
				return "set the mode of " + record.Dir + " to 0700", os.Chmod(record.Dir, 0o700)
			}))
	}
	return append(found, checkSpace())
}

func checkSpace() Finding {
	var fs unix.Statfs_t
	run := filepath.Dir(record.Dir)
	if err := unix.Statfs(run, &fs); err != nil {
		return warn(run, "", "its free space cannot be told: %v", err)
	}
	free := fs.Bavail * uint64(fs.Bsize)
	text := fmt.Sprintf("%d MiB are free for records", free>>20)
	switch {
	case fs.Flags&unix.ST_RDONLY != 0:
		return fails(run, "mount it writable", "every dump fails: it is read-only")
	case free < tooLittle || fs.Files > 0 && fs.Ffree == 0:
		return fails(run, "make room in it", "every dump fails: %s, and %d inodes", text, fs.Ffree)
	case free < scarceSpace:
		return warn(run, "make room in it", "only %s", text)
	}
	return ok(record.Dir, "%s", text)
}
