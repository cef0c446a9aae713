// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// stateRoots are where the runtimes keep a directory for each container, under the
// names that their callers give them: runc and crun by themselves, containerd's shim
// and docker's.
var stateRoots = []string{"/run/runc", "/run/crun", "/run/containerd/runc/*", "/run/docker/runtime-*/*"}

// Running returns what is known about a running container: target is a pid in it, or the
// beginning of its id. Where no runtime's state tells more, only the id is known, and not
// even that for a process in no container.
func Running(target string) (*Container, error) {
	pid, err := strconv.Atoi(target)
	if err != nil {
		ref, err := FindByID(target)
		if err != nil {
			return nil, err
		}
		pid = ref.PID
	}
	if _, err := proc.ReadStat(pid); err != nil {
		return nil, err
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Backward(idsFromCgroup(string(groups))) { // the innermost first
		for _, pattern := range stateRoots {
			roots, _ := filepath.Glob(pattern) // the only error is a bad pattern
			for _, root := range roots {
				c := &Container{Container: identity.Container{ID: id}, Bundle: bundleFromState(command{id: id, root: root})}
				if c.Bundle == "" {
					continue
				}
				if err := c.readBundle(); err != nil {
					return nil, fmt.Errorf("read the bundle of container %s: %w", id, err)
				}
				return c, nil
			}
		}
	}
	if target == strconv.Itoa(pid) {
		return &Container{}, nil
	}
	return &Container{Container: identity.Container{ID: idFromCgroup(string(groups), target)}}, nil
}
