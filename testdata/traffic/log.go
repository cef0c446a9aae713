// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// eventLog appends to a file that is open only while it is written to: CRIU
// refuses to restore an open file whose size has changed since the dump.
type eventLog struct {
	path string
	mu   sync.Mutex
}

// event is something that has gone wrong; its time is in nanoseconds since 1970.
type event struct {
	Time  int64  `json:"time"`
	Conn  uint64 `json:"conn"`
	What  string `json:"what"`
	Error string `json:"error"`
}

func (l *eventLog) event(conn uint64, what string, err error) {
	l.write(event{Time: time.Now().UnixNano(), Conn: conn, What: what, Error: err.Error()})
}

func (l *eventLog) summary(conns []stats.Snapshot) {
	l.write(struct {
		Time  int64            `json:"time"`
		What  string           `json:"what"`
		Conns []stats.Snapshot `json:"conns"`
	}{time.Now().UnixNano(), "summary", conns})
}

func (l *eventLog) write(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err) // v is always a plain structure
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == "" {
		fmt.Fprintf(os.Stderr, "%s\n", line)
		return
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s\n", line)
}
