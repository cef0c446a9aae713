// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/safefile"
)

// Report is what the lines of one file say.
type Report struct {
	ID string `json:"id"`
	Header
	Began   time.Time  `json:"began"`
	Outcome string     `json:"outcome,omitempty"` // empty while it is under way, or if its settler was killed
	Frozen  *time.Time `json:"frozen,omitempty"`
	Thawed  *time.Time `json:"thawed,omitempty"`

	Tasks       int     `json:"tasks,omitempty"`
	Connections int     `json:"connections"`
	Flows       []Flow  `json:"flows,omitempty"` // of a restore, in the order of the images
	Events      []Event `json:"events,omitempty"`
}

// FrozenFor returns how long the network was frozen. ok is false if it never was, or
// still is.
func (r *Report) FrozenFor() (d time.Duration, ok bool) {
	if r.Frozen == nil || r.Thawed == nil {
		return 0, false
	}
	return r.Thawed.Sub(*r.Frozen), true
}

// FirstByte returns when the first and the last of the connections carried a byte, one
// way or the other, after the thaw, and how many did.
func (r *Report) FirstByte() (first, last time.Duration, carried int) {
	for _, f := range r.Flows {
		ns, ok := f.First()
		if !ok {
			continue
		}
		if carried == 0 || ns < first {
			first = ns
		}
		last = max(last, ns)
		carried++
	}
	return first, last, carried
}

// First returns when the connection carried its first byte, whichever way.
func (f Flow) First() (time.Duration, bool) {
	switch {
	case f.InNS == nil && f.OutNS == nil:
		return 0, false
	case f.OutNS == nil || f.InNS != nil && *f.InNS < *f.OutNS:
		return time.Duration(*f.InNS), true
	}
	return time.Duration(*f.OutNS), true
}

// maxReport is the largest report that is read, in bytes.
const maxReport = 4 << 20

// All returns all reports, the oldest first, without their events. Those that cannot be
// read are named by the error; the others are returned all the same.
func All() ([]*Report, error) {
	all, err := names()
	if err != nil {
		return nil, fmt.Errorf("list the reports: %w", err)
	}
	var reports []*Report
	var errs []error
	for _, name := range all {
		r, err := read(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // rotated away meanwhile
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.Events = nil
		reports = append(reports, r)
	}
	return reports, errors.Join(errs...)
}

// IDs returns the ids of all reports, the oldest first.
func IDs() ([]string, error) {
	all, err := names()
	for i, name := range all {
		all[i] = strings.TrimSuffix(name, suffix)
	}
	return all, err
}

// Find returns the report that id names: "last", the beginning or another part of a
// report's id, or the beginning of a container's id or its name, of which the newest
// counts.
func Find(id string) (*Report, error) {
	all, err := names()
	if err != nil {
		return nil, fmt.Errorf("list the reports: %w", err)
	}
	if id == "last" && len(all) > 0 {
		return read(all[len(all)-1])
	}
	var fits []string
	for _, name := range all {
		if id != "" && strings.Contains(strings.TrimSuffix(name, suffix), id) {
			fits = append(fits, name)
		}
	}
	if len(fits) == 1 {
		return read(fits[0])
	}
	if len(fits) == 0 {
		reports, err := All()
		for _, r := range slices.Backward(reports) {
			if c := r.Container; id != "" && (c.Name == id || len(id) >= 3 && strings.HasPrefix(c.ID, id)) {
				return read(r.ID + suffix)
			}
		}
		return nil, errors.Join(code.New(code.Target, fmt.Sprintf("no report has the id %q (netfreeze log lists them)", id)), err)
	}
	return nil, code.New(code.Target, fmt.Sprintf("%q fits %d reports: give more of the id (netfreeze log lists them)", id, len(fits)))
}

func read(name string) (*Report, error) {
	path := filepath.Join(Dir, name)
	data, err := safefile.Read(path, maxReport)
	if err != nil {
		return nil, err
	}
	r, err := parse(data)
	if err != nil {
		return nil, code.New(code.Record, fmt.Sprintf("read the report %s: %v (it can be removed)", path, err))
	}
	r.ID = strings.TrimSuffix(name, suffix)
	return r, nil
}

// parse reads the lines of a report. The last one may be half written.
func parse(data []byte) (*Report, error) {
	whole := bytes.LastIndexByte(data, '\n') + 1
	r := &Report{}
	lines := bufio.NewScanner(bytes.NewReader(data[:whole]))
	lines.Buffer(nil, maxReport)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, err
		}
		r.add(e)
	}
	return r, lines.Err()
}

// add counts one more event in.
func (r *Report) add(e Event) {
	if r.Began.IsZero() || e.At.Before(r.Began) {
		r.Began = e.At // an action is known when it is done
	}
	r.Events = append(r.Events, e)
	switch e.Kind {
	case Begin:
		if e.Header != nil {
			r.Header = *e.Header
		}
	case Frozen:
		if r.Frozen == nil {
			r.Frozen = &e.At
		}
		r.Thawed = nil
	case Thawed:
		r.Thawed = &e.At
	case Connections:
		r.Tasks, r.Connections = e.Tasks, e.Count
	case Carried:
		r.Flows = e.Carried
	case Outcome:
		r.Outcome = e.Name
	case Action, Sent, Message:
	}
}
