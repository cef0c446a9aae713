// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"path/filepath"
	"slices"
)

// stateFiles are what runc (and containerd's shim, which has runc do it) and crun write
// into the directory of each container (libcontainer/factory_linux.go, crun's
// src/libcrun/status.c).
var stateFiles = []string{"state.json", "status"}

// IDs returns the ids of the containers that the runtimes keep a state of, sorted. It
// looks at directories and never at processes, so that it is quick where thousands of
// them run; a container whose runtime did not clear up is among them. What cannot be
// read is left out.
func IDs() []string { return idsIn(stateRoots) }

// idsIn returns the ids of the containers below the directories that the patterns match.
func idsIn(roots []string) (ids []string) {
	for _, root := range roots {
		for _, file := range stateFiles {
			found, _ := filepath.Glob(filepath.Join(root, "*", file)) // the only error is a bad pattern
			for _, path := range found {
				if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
					ids = append(ids, filepath.Base(filepath.Dir(path)))
				}
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
