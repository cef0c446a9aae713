// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"strconv"
	"strings"
)

// Mount is what one line of a mount table tells (proc_pid_mountinfo(5)).
type Mount struct {
	Root    string // the directory within the file system that is mounted; of nsfs, such as net:[INODE]
	Point   string // where it is mounted
	Type    string // of the file system
	Options string // of the file system, separated by commas
}

// ParseMount takes apart a line of /proc/PID/mountinfo. It returns false if it is not
// of that form.
func ParseMount(line string) (Mount, bool) {
	// The fields before the lone hyphen are at least: id, parent, device, root, mount
	// point, mount options. Behind it: type, source, options.
	before, after, ok := strings.Cut(line, " - ")
	f, g := strings.Fields(before), strings.Fields(after)
	if !ok || len(f) < 6 || len(g) < 3 {
		return Mount{}, false
	}
	return Mount{Root: unescape(f[3]), Point: unescape(f[4]), Type: g[0], Options: unescape(g[2])}, true
}

// unescape replaces the octal escapes (\040 for a space) of /proc's mount tables.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
