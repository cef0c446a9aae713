//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// processState is the letter that the kernel has for what a process does.
func processState(pid int) (byte, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// After the name, which is in brackets and may hold anything.
	rest := stat[bytes.LastIndexByte(stat, ')')+1:]
	if len(rest) < 2 {
		return 0, fmt.Errorf("process %d: strange stat %q", pid, stat)
	}
	return rest[1], nil
}

// netnsPath is where a network namespace's file is: a name means one made by
// "ip netns", a path is a path, and "" is the lab's own.
func netnsPath(name string) string {
	switch {
	case name == "":
		return "/proc/1/ns/net"
	case strings.HasPrefix(name, "/"):
		return name
	}
	return filepath.Join("/run/netns", name)
}
