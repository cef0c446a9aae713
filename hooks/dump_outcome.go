// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// statsFile watches stats-dump, which CRIU writes into its working directory
// as the very last thing of a dump that succeeded (cr_dump_finish in
// criu/cr-dump.c, write_stats in criu/stats.c). It is CRIU's word where CRIU's exit
// status cannot be known, and less worth: another dump may write there as well, a
// full disk may have no room for it.
type statsFile struct {
	dir    *os.File
	before os.FileInfo
}

const statsName = "stats-dump"

// watchStats remembers what is there before CRIU writes.
func watchStats(criu proc.Ref) (statsFile, error) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/cwd", criu.PID))
	if err != nil {
		return statsFile{}, fmt.Errorf("open CRIU's working directory: %w", err)
	}
	f := statsFile{dir: dir}
	f.before, _ = f.stat()
	return f, nil
}

func (f statsFile) stat() (os.FileInfo, error) {
	return os.Stat(fmt.Sprintf("/proc/self/fd/%d/%s", f.dir.Fd(), statsName))
}

// written reports whether CRIU has written it since.
func (f statsFile) written() bool {
	if f.dir == nil {
		return false
	}
	now, err := f.stat()
	if err != nil || now.Size() == 0 {
		return false
	}
	return f.before == nil || !os.SameFile(now, f.before) || !now.ModTime().Equal(f.before.ModTime())
}

func (f statsFile) close() {
	if f.dir != nil {
		_ = f.dir.Close()
	}
}

// outcome is what has become of a dump.
type outcome int

const (
	undecided outcome = iota // CRIU is at work
	succeeded                // the images are complete, and CRIU says so
	ended                    // the images are complete, and the tasks have gone
	failed
)

// outcome finds out what has become of the dump, by what is seen: the commit, the
// tasks, CRIU's exit status, and its last file.
func (d *Dump) outcome(tree proc.Tree) outcome {
	committed := d.record().Phase == record.Committed
	switch {
	case committed && ending(tree):
		// The tasks are ended by CRIU, after the images are complete, or by somebody
		// else: a restore is all that can go on, and its peers must not get a RST.
		return ended
	case d.env.CRIU.Alive():
		return undecided
	case !committed:
		return failed
	}
	if status, known := d.env.CRIU.ExitStatus(); known {
		if status.Exited() && status.ExitStatus() == 0 {
			return succeeded
		}
		return failed
	}
	if d.stats.written() {
		return succeeded
	}
	return failed
}

// idleTime is how long CRIU must have waited for a request, after it has let go of
// the tasks, to be done with the dump: mostly it ends at once, and its exit status
// says more. A slow disk can keep it from ending, but not in a receive.
const idleTime = 500 * time.Millisecond

// outcomeWhileAlive is outcome for a caller that keeps CRIU for more requests
// (keep_open in criu/cr-service.c). As long as CRIU has the tasks nobody but it can
// say anything: a stats-dump that comes then is another dump's.
func (d *Dump) outcomeWhileAlive() outcome {
	r := d.record()
	if r.Phase != record.Committed || r.Tree[0].Traced() || !d.env.CRIU.Receives() {
		d.idleSince = time.Time{}
		return undecided
	}
	if d.idleSince.IsZero() {
		d.idleSince = time.Now()
	}
	switch {
	case time.Since(d.idleSince) < idleTime:
		return undecided
	case d.stats.written():
		return succeeded
	}
	return failed
}

// checkWorkDir refuses a dump whose success could not be told from another one's:
// the kernel forgets exit statuses, and another CRIU uses the same directory.
func checkWorkDir(criu proc.Ref, remembers bool) error {
	if remembers {
		return nil
	}
	own, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", criu.PID))
	if err != nil {
		return fmt.Errorf("look at CRIU's working directory: %w", err)
	}
	daemon := 0 // of criu service, which dumps nothing itself
	if st, err := proc.ReadStat(criu.PID); err == nil {
		daemon = st.PPID
	}
	dirs, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err != nil || pid == criu.PID {
			continue
		}
		st, err := proc.ReadStat(pid)
		if err != nil || st.Comm != "criu" || st.PPID == criu.PID || pid == daemon {
			continue
		}
		if other, err := os.Stat(dir); err == nil && os.SameFile(own, other) {
			return code.New(code.SharedWorkDir, fmt.Sprintf("CRIU's process %d has the same working directory, and this kernel (before 6.15) does not tell which of the two succeeds: give each dump a work directory of its own (criu --work-dir)", pid))
		}
	}
	return nil
}
