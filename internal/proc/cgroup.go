// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// JoinCgroups moves the calling process into the control groups of the process with
// the pid other, in each mounted hierarchy in which they differ from its own. A
// failure in one hierarchy does not stop the others; the error joins them all.
func JoinCgroups(other int) error {
	own, err := cgroups("self")
	if err != nil {
		return fmt.Errorf("read our control groups: %w", err)
	}
	theirs, err := cgroups(fmt.Sprint(other))
	if err != nil {
		return fmt.Errorf("read the control groups of pid %d: %w", other, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for controllers, path := range theirs {
		if own[controllers] == path || strings.HasPrefix(path, "/..") { // /..: it is outside our cgroup namespace
			continue
		}
		dir := cgroupDir(string(mounts), controllers, path)
		if dir == "" {
			continue
		}
		err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644) // 0: the writer itself
		if err != nil {
			errs = append(errs, fmt.Errorf("move to the control group %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// cgroups returns a process's group in each hierarchy, as parseCgroups does.
func cgroups(pid string) (map[string]string, error) {
	data, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return nil, err
	}
	return parseCgroups(string(data)), nil
}

// parseCgroups returns the groups in a /proc/PID/cgroup file by the controllers of
// their hierarchies, which are "" for version 2 (cgroups(7)).
func parseCgroups(data string) map[string]string {
	groups := map[string]string{}
	for line := range strings.Lines(data) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 {
			groups[f[1]] = f[2]
		}
	}
	return groups
}

// cgroupDir returns the directory of a group according to the mount table, or "" if
// its hierarchy is not mounted, or only a part of it that does not have the group. A
// hierarchy's mount is of type cgroup2, or of type cgroup with the controllers as
// options. The directory is the mount point or below it.
func cgroupDir(mountinfo, controllers, path string) string {
	for line := range strings.Lines(mountinfo) {
		m, ok := ParseMount(line)
		switch {
		case !ok:
			continue
		case m.Type == "cgroup2" && controllers == "":
		case m.Type == "cgroup" && controllers != "" && hasAll(m.Options, controllers):
		default:
			continue
		}
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(m.Root, "/"))
		switch {
		case !ok:
		case rest == "":
			return m.Point
		case rest[0] == '/' && filepath.IsLocal("."+rest):
			return filepath.Join(m.Point, rest)
		}
	}
	return ""
}

// hasAll reports whether every one of the comma-separated words is among the
// options.
func hasAll(options, words string) bool {
	for w := range strings.SplitSeq(words, ",") {
		if !strings.Contains(","+options+",", ","+w+",") {
			return false
		}
	}
	return true
}
