// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// openRoot takes hold of the root task that CRIU names in CRTOOLS_INIT_PID.
func openRoot(req action.Request) (*proc.Process, error) {
	pid, err := rootPID(req)
	if err != nil {
		return nil, err
	}
	p, err := proc.Open(pid)
	if err != nil {
		return nil, fmt.Errorf("take hold of the root task: %w; nothing was changed", err)
	}
	return p, nil
}

// rootPID parses CRTOOLS_INIT_PID.
func rootPID(req action.Request) (int, error) {
	if req.InitPID == "" {
		return 0, errors.New("CRTOOLS_INIT_PID is not set: CRIU sets it, so this was called by something else; nothing was changed")
	}
	pid, err := strconv.Atoi(req.InitPID)
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("CRTOOLS_INIT_PID is %q, not a process id; nothing was changed", req.InitPID)
	}
	return pid, nil
}

// imageDir returns CRTOOLS_IMAGE_DIR, a path into CRIU's own /proc entry.
func imageDir(req action.Request, criu proc.Ref) (string, error) {
	if req.ImageDir == "" {
		return "", errors.New("CRTOOLS_IMAGE_DIR is not set: CRIU sets it, so this was called by something else; nothing was changed")
	}
	fd, ok := strings.CutPrefix(req.ImageDir, fmt.Sprintf("/proc/%d/fd/", criu.PID))
	if _, err := strconv.ParseUint(fd, 10, 31); !ok || err != nil {
		return "", fmt.Errorf("CRTOOLS_IMAGE_DIR is %q, which does not belong to the calling process %d; nothing was changed", req.ImageDir, criu.PID)
	}
	return req.ImageDir, nil
}
