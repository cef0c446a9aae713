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

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// request is one call of a script by CRIU.
type request struct {
	script   string // name under which the script was executed
	name     string // CRTOOLS_SCRIPT_ACTION
	imageDir string // CRTOOLS_IMAGE_DIR: valid while CRIU lives
	initPID  string // CRTOOLS_INIT_PID: the root task, in CRIU's pid namespace
}

// parseRequest takes apart what the action-script sent, see package relay.
func parseRequest(message string) (request, error) {
	f := strings.Split(message, "\x00")
	if len(f) != 5 || f[0] != action.Version {
		return request{}, errors.New("the action-script and the netfreeze program are not of the same version: install both anew")
	}
	return request{script: f[1], name: f[2], imageDir: f[3], initPID: f[4]}, nil
}

// do does one action. An error makes CRIU give up where it still can.
func (s *settler) do(a request) error {
	switch a.name {
	case action.PreDump:
		return s.preDump(a)
	case action.PreRestore:
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
	case a.name == action.NetworkLock && op == record.Dump:
		return s.tx.networkLock()
	case a.name == action.PostDump && op == record.Dump:
		return s.tx.postDump(a)
	case a.name == action.NetworkUnlock && op == record.Dump:
		if a.script == "post-resume" {
			return nil // the other half of the split scripts
		}
		return s.tx.dumpUnlock()
	case a.name == action.PostSetupNS && op == record.Restore:
		return s.tx.postSetupNS(a)
	case a.name == action.NetworkUnlock && op == record.Restore:
		if a.script == "post-dump" {
			return nil
		}
		return s.tx.restoreUnlock()
	case a.name == action.PostResume && op == record.Restore:
		return s.finish()
	default:
		return fmt.Errorf("this action does not belong to a %s, which this CRIU began; nothing was changed", op)
	}
}

// resume takes up the transaction of a settler that was killed.
func (s *settler) resume() error {
	rec, err := record.Load(s.id)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("no pre-dump or pre-restore came before from this CRIU; nothing was changed (is the script listed for all actions? see netfreeze install)")
	}
	if err != nil {
		return err
	}
	cfg, err := s.configure()
	if err != nil {
		s.log.Warnf("going on without the configuration: %s", oneLine(err))
		cfg = config.Default() // what matters is in the record
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
func (a request) root() (*proc.Process, error) {
	pid, err := a.pid()
	if err != nil {
		return nil, err
	}
	p, err := proc.Open(pid)
	if err != nil {
		return nil, fmt.Errorf("take hold of the root task: %w; nothing was changed", err)
	}
	return p, nil
}

// pid parses CRTOOLS_INIT_PID.
func (a request) pid() (int, error) {
	if a.initPID == "" {
		return 0, errors.New("CRTOOLS_INIT_PID is not set: CRIU sets it, so this was called by something else; nothing was changed")
	}
	pid, err := strconv.Atoi(a.initPID)
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("CRTOOLS_INIT_PID is %q, not a process id; nothing was changed", a.initPID)
	}
	return pid, nil
}

// images returns the image directory, a path into CRIU's own /proc entry.
func (a request) images(criu proc.Ref) (string, error) {
	if a.imageDir == "" {
		return "", errors.New("CRTOOLS_IMAGE_DIR is not set: CRIU sets it, so this was called by something else; nothing was changed")
	}
	fd, ok := strings.CutPrefix(a.imageDir, fmt.Sprintf("/proc/%d/fd/", criu.PID))
	if _, err := strconv.ParseUint(fd, 10, 31); !ok || err != nil {
		return "", fmt.Errorf("CRTOOLS_IMAGE_DIR is %q, which does not belong to the calling process %d; nothing was changed", a.imageDir, criu.PID)
	}
	return a.imageDir, nil
}
