// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/safefile"
)

// Lock is a lock on a file in Dir, which is there only while somebody has the
// lock. The kernel gives it back when the process ends, however it ends; the
// file stays then, see Sweep.
//
// It is a lock of the open file description (fcntl(2), F_OFD_SETLK), in a
// directory that root alone can enter: nobody else can take it.
type Lock struct {
	file *os.File
	path string
}

// Acquire takes the transaction called id for this process. It fails if another
// one keeps it.
func Acquire(id string) (*Lock, error) {
	const patience = 500 * time.Millisecond
	l, err := AcquireFile(id+lockSuffix, patience)
	if err != nil {
		return nil, fmt.Errorf("lock transaction %s: %w", id, err)
	}
	return l, nil
}

// Release gives a transaction back and removes its settler's socket.
func Release(id string, l *Lock) {
	_ = os.Remove(action.Socket(id))
	l.Release()
}

// AcquireFile waits for the lock on the file called name in Dir, for patience at
// most. The error wraps unix.EAGAIN if another process has it all that time.
func AcquireFile(name string, patience time.Duration) (*Lock, error) {
	path := filepath.Join(Dir, name)
	for deadline := time.Now().Add(patience); ; {
		l, err := try(path)
		if l != nil {
			return l, nil
		}
		switch late := time.Now().After(deadline); {
		case errors.Is(err, unix.EAGAIN) && late:
			return nil, code.Wrap(code.OtherTransaction, fmt.Errorf("%w: %s has it; if that hangs, end it with kill -9", err, holder(path)))
		case err != nil && !errors.Is(err, unix.EAGAIN):
			return nil, err
		}
		if err != nil {
			time.Sleep(time.Millisecond)
		}
	}
}

// try takes the lock if it is free. It returns neither a lock nor an error if the
// file was removed meanwhile by the one who had the lock before: a lock on a file
// that nobody else can find excludes nobody.
func try(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if !isAt(f, path) {
		_ = f.Close()
		return nil, nil
	}
	_, _ = f.WriteAt([]byte(fmt.Sprintf("%-10d", os.Getpid())), 0) // for holder; a full disk has no room for it
	return &Lock{f, path}, nil
}

// holder names the process that has a lock, as far as it is known.
func holder(path string) string {
	text, err := os.ReadFile(path)
	pid := strings.TrimSpace(string(text))
	if _, err2 := strconv.Atoi(pid); err != nil || err2 != nil {
		return "another process"
	}
	return "process " + pid
}

// NoFile reports whether err, from [MakeDir], [Acquire] or [AcquireFile], says that the
// state directory takes no new file: it is full, read-only, gone or closed to us. Then
// nobody else can take that lock either.
func NoFile(err error) bool {
	var p *fs.PathError // of making the file, and not of locking it
	return errors.As(err, &p) && (errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) ||
		errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES))
}

// isAt reports whether the open file is the one that has this path now.
func isAt(f *os.File, path string) bool {
	own, err1 := f.Stat()
	there, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(own, there)
}

// Release gives the lock back.
func (l *Lock) Release() {
	// Before the lock goes: whoever gets it on the removed file notices that.
	_ = os.Remove(l.path)
	_ = l.file.Close()
}

const lockSuffix = ".lock"

// Busy reports whether some process has the transaction called id. It only asks:
// nobody who takes the lock at the same time notices.
func Busy(id string) bool {
	f, err := os.Open(filepath.Join(Dir, id+lockSuffix))
	if err != nil {
		return false
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK
}

// abandoned is after which time nobody writes to a file any more, which takes moments,
// even if a process has the writer's pid.
const abandoned = time.Minute

// Sweep removes the locks and sockets of processes that were killed, where no
// record is left for which another settler could go on, and what they had half written.
func Sweep() {
	half, _ := filepath.Glob(filepath.Join(Dir, ".*"))
	for _, file := range half {
		pid, ok := safefile.Writer(file)
		if !ok {
			continue
		}
		_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		if info, err2 := os.Lstat(file); errors.Is(err, os.ErrNotExist) || err2 == nil && time.Since(info.ModTime()).Abs() > abandoned {
			_ = os.Remove(file)
		}
	}
	// A settler that could not lock its transaction again leaves a socket without a lock.
	for _, suffix := range []string{lockSuffix, action.SocketSuffix} {
		files, _ := filepath.Glob(filepath.Join(Dir, "*"+suffix))
		for _, file := range files {
			id := strings.TrimSuffix(filepath.Base(file), suffix)
			if _, err := os.Stat(path(id)); !errors.Is(err, os.ErrNotExist) {
				continue
			}
			if l, err := try(filepath.Join(Dir, id+lockSuffix)); err == nil && l != nil {
				Release(id, l)
			}
		}
	}
}
