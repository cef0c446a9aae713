// Package hooks does what CRIU's actions ask for, in CRIU's order: one file per
// script, and the transaction that they share.
//
//	dump:    pre-dump → network-lock → post-dump → network-unlock → settle
//	restore: pre-restore → post-setup-namespaces → network-unlock → post-resume
//
// All of it runs in one process per CRIU, the settler (settler.go), which the
// first action starts and which ends the transaction once CRIU has ended,
// however that happened. Packets are dropped by package rules; which ones, for
// how long and until when is decided here.
package hooks

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/proc"
	"github.com/criu-netfreeze/criu-netfreeze/relay"
	"github.com/criu-netfreeze/criu-netfreeze/state"
)

// action is one call of a script by CRIU.
type action struct {
	script   string // name under which the script was executed
	name     string // CRTOOLS_SCRIPT_ACTION
	imageDir string // CRTOOLS_IMAGE_DIR: valid while CRIU lives
	initPID  string // CRTOOLS_INIT_PID: the root task, in CRIU's pid namespace
}

// do does one action. An error makes CRIU give up where it still can.
func (s *settler) do(a action) error {
	switch a.name {
	case relay.PreDump:
		return s.preDump(a)
	case relay.PreRestore:
		return s.preRestore(a)
	}
	if s.finished {
		return nil // a script that is listed twice
	}
	if s.tx == nil {
		if err := s.resume(); err != nil {
			return err
		}
	}
	switch op := s.tx.rec.Op; {
	case a.name == relay.NetworkLock && op == state.Dump:
		return s.tx.networkLock()
	case a.name == relay.PostDump && op == state.Dump:
		return s.tx.postDump()
	case a.name == relay.NetworkUnlock && op == state.Dump:
		if a.script == "post-resume" {
			return nil // the other half of the split scripts
		}
		return s.tx.dumpUnlock()
	case a.name == relay.PostSetupNS && op == state.Restore:
		return s.tx.postSetupNS(a)
	case a.name == relay.NetworkUnlock && op == state.Restore:
		if a.script == "post-dump" {
			return nil
		}
		return s.tx.restoreUnlock()
	case a.name == relay.PostResume && op == state.Restore:
		return s.finish()
	default:
		return fmt.Errorf("this action does not belong to a %s, which this CRIU began; nothing was changed", op)
	}
}

// resume takes up the transaction of a settler that was killed.
func (s *settler) resume() error {
	rec, err := state.Load(s.id)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("no pre-dump or pre-restore came before from this CRIU; nothing was changed (is the script listed for all actions? see netfreeze install)")
	}
	if err != nil {
		return err
	}
	cfg, err := s.configure()
	if err != nil {
		return err
	}
	tx, err := reopen(s, cfg, rec)
	if err != nil {
		return err
	}
	s.log.Warn("the settler was gone; a new one goes on with the transaction")
	s.tx = tx
	return nil
}

// root takes hold of the root task that CRIU names.
func (a action) root() (*proc.Process, error) {
	if a.initPID == "" {
		return nil, errors.New("CRTOOLS_INIT_PID is not set: CRIU sets it, so this was called by something else; nothing was changed")
	}
	pid, err := strconv.Atoi(a.initPID)
	if err != nil || pid <= 0 {
		return nil, fmt.Errorf("CRTOOLS_INIT_PID is %q, not a process id; nothing was changed", a.initPID)
	}
	p, err := proc.Open(pid)
	if err != nil {
		return nil, fmt.Errorf("take hold of the root task: %w; nothing was changed", err)
	}
	return p, nil
}

// images returns the image directory, a path into CRIU's own /proc entry.
func (a action) images(criu proc.Ref) (string, error) {
	if a.imageDir == "" {
		return "", errors.New("CRTOOLS_IMAGE_DIR is not set: CRIU sets it, so this was called by something else; nothing was changed")
	}
	if !strings.HasPrefix(a.imageDir, fmt.Sprintf("/proc/%d/fd/", criu.PID)) {
		return "", fmt.Errorf("CRTOOLS_IMAGE_DIR is %q, which does not belong to the calling process %d; nothing was changed", a.imageDir, criu.PID)
	}
	return a.imageDir, nil
}
