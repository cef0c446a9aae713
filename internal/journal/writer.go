// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// What is kept: the newest reports, up to a number and a size in bytes.
const (
	maxReports = 500
	maxBytes   = 32 << 20
)

const (
	suffix     = ".jsonl"
	nameTime   = "20060102-150405" // in UTC, so that names sort by time
	maxPending = 1024              // events that wait to be written
	lastWrite  = time.Second       // how long Close waits for a disk
)

// Journal writes the report of one transaction, beside everything else: no event waits
// for the disk, and an error is known at Close. A nil Journal takes events and writes
// nothing. Its methods may be called from several goroutines.
type Journal struct {
	events chan Event
	done   chan struct{} // closed when all is written
	err    error         // why not, once done is closed

	mu     sync.Mutex // for what follows
	closed bool
	lost   int // events that came too fast
}

// Open returns the journal of the transaction that CRIU's process id (PID@START) is
// for. There is no file before the first event comes; one that a killed settler has
// begun is continued.
func Open(id string) *Journal {
	j := &Journal{events: make(chan Event, maxPending), done: make(chan struct{})}
	go func() {
		defer close(j.done)
		j.err = j.write(id)
	}()
	return j
}

// Add writes an event. A time that is not set becomes now.
func (j *Journal) Add(e Event) {
	if j == nil {
		return
	}
	if e.At.IsZero() {
		e.At = time.Now()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	select {
	case j.events <- e:
	default:
		j.lost++
	}
}

// Sent notes that packets were sent.
func (j *Journal) Sent(what string, packets int) {
	if packets > 0 {
		j.Add(Event{Kind: Sent, Name: what, Packets: packets})
	}
}

// Close writes what is left, and says what could not be written.
func (j *Journal) Close() error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		close(j.events)
	}
	lost := j.lost
	j.mu.Unlock()
	select {
	case <-j.done:
	case <-time.After(lastWrite):
		return fmt.Errorf("write the report below %s: %w", Dir, os.ErrDeadlineExceeded)
	}
	if lost > 0 {
		return errors.Join(j.err, fmt.Errorf("the report below %s lacks %d events: %w", Dir, lost, unix.ENOBUFS))
	}
	return j.err
}

// write writes events as they come. After an error it only takes them.
func (j *Journal) write(id string) (err error) {
	var f *os.File
	for e := range j.events {
		if err == nil && f == nil {
			f, err = create(id, e.At)
		}
		if err == nil {
			err = appendTo(f, e)
		}
	}
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		err = fmt.Errorf("write the report: %w", err)
	}
	return err
}

func appendTo(f *os.File, e Event) error {
	line, err := json.Marshal(e)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
	}
	return err
}

// create opens the report of a transaction, after room was made for it.
func create(id string, at time.Time) (*os.File, error) {
	if err := os.MkdirAll(Dir, 0o700); err != nil {
		return nil, err
	}
	path, err := find(id)
	if errors.Is(err, os.ErrNotExist) {
		path = filepath.Join(Dir, at.UTC().Format(nameTime)+"-"+id+suffix)
		err = rotate(maxReports-1, maxBytes)
	}
	if err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
}

// find returns the report that a transaction has, or os.ErrNotExist.
func find(id string) (string, error) {
	names, err := names()
	if err != nil {
		return "", err
	}
	for _, name := range slices.Backward(names) {
		if transaction(name) == id {
			return filepath.Join(Dir, name), nil
		}
	}
	return "", os.ErrNotExist
}

// names returns the reports' names, the oldest first. It is no error if there are none.
func names() ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if transaction(e.Name()) != "" && e.Type().IsRegular() {
			all = append(all, e.Name())
		}
	}
	return all, nil // in the order of their names
}

// transaction returns the id of the transaction that a file of this name reports, "" if
// it is no report.
func transaction(name string) string {
	const begin = len(nameTime) + len("-")
	if filepath.Ext(name) != suffix || len(name) <= begin+len(suffix) {
		return ""
	}
	if _, err := time.Parse(nameTime, name[:len(nameTime)]); err != nil {
		return ""
	}
	return name[begin : len(name)-len(suffix)]
}

// rotate removes the oldest reports until at most count are left, with at most size
// bytes.
func rotate(count int, size int64) error {
	all, err := names()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Backward(all) {
		path := filepath.Join(Dir, name)
		info, err := os.Lstat(path)
		if err != nil {
			continue // removed by another settler
		}
		count, size = count-1, size-info.Size()
		if count < 0 || size < 0 {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Append adds an event to the report of a transaction that has ended, such as what a
// command has done with it. It is no error if there is no report.
func Append(id string, e Event) error {
	path, err := find(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if e.At.IsZero() {
		e.At = time.Now()
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(appendTo(f, e), f.Close())
}

// MaxFlows is how many connections a report names at most.
const MaxFlows = 1000

// Limit returns at most MaxFlows connections.
func Limit(conns []tcp.Tuple) tcp.Tuples { return conns[:min(len(conns), MaxFlows)] }
