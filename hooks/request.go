// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
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
		return 0, code.New(code.NotByCRIU, "CRTOOLS_INIT_PID is not set: CRIU sets it, so this was called by something else; nothing was changed")
	}
	pid, err := strconv.Atoi(req.InitPID)
	if err != nil || pid <= 0 {
		return 0, code.New(code.NotByCRIU, fmt.Sprintf("CRTOOLS_INIT_PID is %q, not a process id; nothing was changed", req.InitPID))
	}
	return pid, nil
}

// imageDir returns the directory of the images: CRTOOLS_IMAGE_DIR, a path into CRIU's
// own /proc entry. In a worker of criu service that has the number of the daemon, and no
// descriptor, since the daemon sets it once, before it knows a directory; then it is
// found among the worker's descriptors, if there are images in it.
func imageDir(req action.Request, criu proc.Ref) (string, error) {
	if err := checkCaller(req, criu); err != nil {
		return "", err
	}
	if strings.HasSuffix(req.ImageDir, noDescriptor) {
		return serviceImages(criu)
	}
	return req.ImageDir, nil
}

// noDescriptor ends CRTOOLS_IMAGE_DIR in a worker of criu service.
const noDescriptor = "/fd/-1"

// checkCaller makes sure that it was this CRIU that executed the script.
func checkCaller(req action.Request, criu proc.Ref) error {
	if req.ImageDir == "" {
		return code.New(code.NotByCRIU, "CRTOOLS_IMAGE_DIR is not set: CRIU sets it, so this was called by something else; nothing was changed")
	}
	fd, ok := strings.CutPrefix(req.ImageDir, fmt.Sprintf("/proc/%d/fd/", criu.PID))
	if _, err := strconv.ParseUint(fd, 10, 31); ok && err == nil {
		return nil
	}
	if st, err := proc.ReadStat(criu.PID); err == nil && st.PPID > 1 && req.ImageDir == fmt.Sprintf("/proc/%d", st.PPID)+noDescriptor {
		return nil
	}
	return code.New(code.ImageDir, fmt.Sprintf("CRTOOLS_IMAGE_DIR is %q, which does not belong to the calling process %d; nothing was changed", req.ImageDir, criu.PID))
}

// serviceImages returns the directory with images that CRIU has open, the one in which
// the inventory is newest if there are more.
func serviceImages(criu proc.Ref) (string, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", criu.PID))
	if err != nil {
		return "", fmt.Errorf("look at CRIU's descriptors: %w", err)
	}
	var dir string
	var newest time.Time
	for _, e := range entries {
		path := fmt.Sprintf("/proc/%d/fd/%s", criu.PID, e.Name())
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			continue
		}
		if info, err := os.Stat(path + "/inventory.img"); err == nil && info.ModTime().After(newest) {
			dir, newest = path, info.ModTime()
		}
	}
	if dir == "" {
		return "", code.New(code.ImageDir, fmt.Sprintf("CRTOOLS_IMAGE_DIR does not name the image directory, and none of the directories that CRIU's process %d has open has images (criu service does not tell; call criu swrk, or the criu command, instead)", criu.PID))
	}
	return dir, nil
}
