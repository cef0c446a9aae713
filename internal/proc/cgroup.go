package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// JoinCgroups moves the calling process into the control groups of another one,
// in each hierarchy that is mounted, where they differ from its own.
func JoinCgroups(other int) error {
	own, err := cgroups("self")
	if err != nil {
		return err
	}
	theirs, err := cgroups(fmt.Sprint(other))
	if err != nil {
		return err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for controllers, path := range theirs {
		if own[controllers] == path || strings.HasPrefix(path, "/..") { // outside of what we can see
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

// cgroups maps the controllers of each hierarchy, "" for version 2, to the
// process's group there.
func cgroups(pid string) (map[string]string, error) {
	data, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return nil, err
	}
	groups := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			groups[f[1]] = f[2]
		}
	}
	return groups, nil
}

// cgroupDir finds the directory of a group in the mount table: the hierarchy's
// mount is of type cgroup2, or of type cgroup with the controllers as options.
func cgroupDir(mountinfo, controllers, path string) string {
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		root, point := f[3], f[4]
		switch {
		case g[0] == "cgroup2" && controllers == "":
		case g[0] == "cgroup" && controllers != "" && hasAll(g[2], controllers):
		default:
			continue
		}
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
		if ok {
			return filepath.Join(point, rest)
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
