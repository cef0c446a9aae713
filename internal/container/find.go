// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// minPrefix is the length of the shortest prefix of an id that is accepted.
const minPrefix = 3

// FindByID looks for a running container by a prefix of its id, in the names of
// the control groups that the runtimes make for their containers, and returns
// its first process. If the prefix fits several containers, the error names them.
func FindByID(prefix string) (proc.Ref, error) {
	if len(prefix) < minPrefix {
		return proc.Ref{}, code.New(code.Target, fmt.Sprintf("container id prefix %q is too short: give at least %d characters", prefix, minPrefix))
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return proc.Ref{}, err
	}
	found := map[string]proc.Ref{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			continue
		}
		id := idFromCgroup(string(data), prefix)
		st, err := proc.ReadStat(pid)
		if id == "" || err != nil {
			continue
		}
		// A container's first process is its oldest one.
		if old, ok := found[id]; !ok || st.Start < old.Start || st.Start == old.Start && pid < old.PID {
			found[id] = proc.Ref{PID: pid, Start: st.Start}
		}
	}
	switch len(found) {
	case 0:
		return proc.Ref{}, code.New(code.Target, fmt.Sprintf("no running container has an id that begins with %q", prefix))
	case 1:
		for _, r := range found {
			return r, nil
		}
	}
	var ids []string
	for id := range found {
		ids = append(ids, id)
	}
	return proc.Ref{}, code.New(code.Target, fmt.Sprintf("%q fits %d containers (%s): give more of the id", prefix, len(found), strings.Join(ids, ", ")))
}

// idOf returns the container's id in a component of a control group's path: systemd's
// scopes are called RUNTIME-ID.scope, plain groups ID, by podman and CRI-O libpod-ID and
// crio-ID. It returns "" for the group of the monitor that these two start before a
// container (libpod-conmon-ID): that is on the host.
func idOf(component string) string {
	name, scope := strings.CutSuffix(component, ".scope")
	engine := strings.HasPrefix(name, "libpod-") || strings.HasPrefix(name, "crio-")
	if !scope && !engine {
		return name
	}
	dash := strings.LastIndexByte(name, '-')
	if engine && strings.HasSuffix(name[:dash], "-conmon") {
		return ""
	}
	return name[dash+1:]
}

// idFromCgroup returns the container id that begins with prefix among those of a
// /proc/PID/cgroup file, "" if there is none.
func idFromCgroup(data, prefix string) string {
	for _, id := range idsFromCgroup(data) {
		if strings.HasPrefix(id, prefix) {
			return id
		}
	}
	return ""
}

// idsFromCgroup returns the components of a /proc/PID/cgroup file that may be a
// container's id, in their order: the outermost ones of each line first.
func idsFromCgroup(data string) (ids []string) {
	for line := range strings.Lines(data) {
		_, path, ok := strings.Cut(strings.TrimSpace(line), ":/")
		if !ok {
			continue
		}
		for part := range strings.SplitSeq(path, "/") {
			if id := idOf(part); id != "" {
				ids = append(ids, id)
			}
		}
	}
	return ids
}
