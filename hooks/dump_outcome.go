package hooks

import (
	"fmt"
	"os"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// statsFile watches stats-dump, which CRIU writes into its working directory
// as the very last thing of a dump that succeeded (cr_dump_finish in
// criu/cr-dump.c, write_stats in criu/stats.c). No exit code reaches us: other
// scripts may have failed, and it is CRIU's parent that waits for it.
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

// succeeded reports whether CRIU has finished the dump with success.
func (d *Dump) succeeded() bool {
	return d.record().Phase == record.Committed && d.stats.written()
}

// abandonedAfter is how long after CRIU has let go of the tasks it must have
// written stats-dump: it does so in the next moment.
const abandonedAfter = 2 * time.Second

// abandoned reports whether CRIU has let go of the tasks of a committed dump
// without success, and lives on: a caller may keep it for more requests.
func (d *Dump) abandoned() bool {
	r := d.record()
	if r.Phase != record.Committed || r.Tree[0].Traced() {
		d.untracedSince = time.Time{}
		return false
	}
	if d.untracedSince.IsZero() {
		d.untracedSince = time.Now()
	}
	return time.Since(d.untracedSince) > abandonedAfter
}
