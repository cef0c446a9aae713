// SPDX-License-Identifier: Apache-2.0

package criuimg

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/stats"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// maxTasks is more than the default of kernel.pid_max (PID_MAX_DEFAULT in
// linux/threads.h).
const maxTasks = 1 << 16

// Task is a process in the images.
type Task struct {
	PID     int    // in its own pid namespace
	Parent  int    // 0 for the root task
	Comm    string // name, as in /proc/PID/comm; empty if there is no image of it
	Threads int
}

// ReadFS is [Read] for images in a file system. A file there must be an io.ReaderAt.
func ReadFS(images fs.FS) (*Checkpoint, error) { return read(images) }

// Tasks returns the processes, of which the root task is the first. One image file is
// read for each.
func (cp *Checkpoint) Tasks() ([]Task, error) {
	var tasks []Task
	err := each(cp.images, "pstree.img", "PSTREE", maxEntry, func(entry []byte) error {
		var e pstree.PstreeEntry
		if err := decode(entry, &e); err != nil {
			return err
		}
		if len(tasks) == maxTasks {
			return code.New(code.TooLarge, fmt.Sprintf("there are more than %d processes", maxTasks))
		}
		tasks = append(tasks, Task{PID: int(e.GetPid()), Parent: int(e.GetPpid()), Threads: len(e.GetThreads())})
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range tasks {
		var core criu_core.CoreEntry
		err := first(cp.images, fmt.Sprintf("core-%d.img", tasks[i].PID), "CORE", &core)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		tasks[i].Comm = core.GetTc().GetComm()
	}
	return tasks, nil
}

// ClosesTCP reports whether the dump was made with --tcp-close: then no connection is in
// the images.
func (cp *Checkpoint) ClosesTCP() (bool, error) {
	var inv inventory.InventoryEntry
	err := first(cp.images, "inventory.img", "INVENTORY", &inv)
	return inv.GetTcpClose(), err
}

// FrozenTime returns for how long the tasks were stopped, in microseconds, by
// stats-dump in a directory, which is CRIU's work directory. The error wraps
// fs.ErrNotExist if there is none.
func FrozenTime(dir fs.FS) (time.Duration, error) {
	var s stats.StatsEntry
	if err := first(dir, "stats-dump", "STATS", &s); err != nil {
		return 0, err
	}
	return time.Duration(s.GetDump().GetFrozenTime()) * time.Microsecond, nil
}
