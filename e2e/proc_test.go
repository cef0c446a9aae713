// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// processState returns the letter with which /proc/PID/stat describes a
// process's state.
func processState(pid int) (byte, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// It follows the name, which is in parentheses and may contain anything.
	rest := stat[bytes.LastIndexByte(stat, ')')+1:]
	if len(rest) < 2 {
		return 0, fmt.Errorf("process %d: cannot parse /proc/PID/stat: %q", pid, stat)
	}
	return rest[1], nil
}

// netnsPath returns the path of a network namespace's file. A name stands for a
// namespace made by "ip netns", a path for itself, and "" for the lab's own.
func netnsPath(name string) string {
	switch {
	case name == "":
		return "/proc/1/ns/net"
	case strings.HasPrefix(name, "/"):
		return name
	}
	return filepath.Join("/run/netns", name)
}
