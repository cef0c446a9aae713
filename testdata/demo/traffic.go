// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// recordSize is the length of a record in bytes; each side sends one every
// millisecond on each connection. The client sends as well because a peer that
// only reads would send nothing to the new namespace that could be reset.
const recordSize = 1024

// traffic is one of the two traffic programs, and its counters.
type traffic struct {
	name  string
	pid   int
	log   string
	told  int // how much of the log has been shown
	stats *stats.File
}

// startTraffic starts a traffic program on a host, and returns when its counters
// can be read.
func startTraffic(h *host, dir string, args ...string) (*traffic, error) {
	t := &traffic{name: h.netns, log: filepath.Join(dir, h.netns+".log")}
	counters := filepath.Join(dir, h.netns+".stats")
	cmd := exec.Command(filepath.Join(build, "traffic"), append(args, "--stats", counters, "--log", t.log)...)
	cmd.Dir = "/"
	// A session of its own: CRIU cannot dump a task of the caller's session.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := within(h.netns, cmd.Start); err != nil {
		return nil, fmt.Errorf("start the %s: %w", h.netns, err)
	}
	t.pid = cmd.Process.Pid
	// Reaped at once: the restore needs the pid to be free.
	go func() { _ = cmd.Wait() }()
	return t, poll(func() (err error) {
		t.stats, err = stats.Open(counters)
		return err
	})
}

func (t *traffic) signal(s syscall.Signal) error {
	if err := syscall.Kill(t.pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s to the %s: %w", s, t.name, err)
	}
	return nil
}

// gone waits until the program has ended and its pid is free.
func (t *traffic) gone() error {
	return poll(func() error {
		if err := syscall.Kill(t.pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("the %s, process %d, is still there", t.name, t.pid)
		}
		return nil
	})
}

// close ends the program, if it still runs, and closes its counters.
func (t *traffic) close() error {
	return errors.Join(t.signal(syscall.SIGKILL), t.gone(), t.stats.Close())
}

// complaints returns what the program has logged since the last call.
func (t *traffic) complaints() (complaints []string) {
	log, err := os.ReadFile(t.log)
	if err != nil {
		return nil // there is no log until something goes wrong
	}
	end := bytes.LastIndexByte(log, '\n') + 1
	for line := range bytes.Lines(log[t.told:end]) {
		var event struct{ What, Error string }
		if err := json.Unmarshal(line, &event); err == nil && event.Error != "" {
			complaints = append(complaints, fmt.Sprintf("the %s says: %s", t.name, event.Error))
		}
	}
	t.told = end
	return complaints
}

// records says how many records each connection has received, and for how long
// nothing has arrived.
func (t *traffic) records() string {
	var texts []string
	last := int64(0)
	for i, c := range t.stats.Snapshots() {
		text := fmt.Sprintf("IPv%d record %d", 4+2*i, c.Received/recordSize)
		if c.State == stats.Broken {
			text += " broken"
		}
		texts = append(texts, text)
		last = max(last, c.LastAt)
	}
	silent := time.Since(time.Unix(0, last)).Seconds()
	return fmt.Sprintf("%s: %s, silent for %.2f s", t.name, strings.Join(texts, ", "), silent)
}

// living counts the connections on which something has arrived just now.
func (t *traffic) living() (n int) {
	for _, c := range t.stats.Snapshots() {
		if c.State == stats.Established && time.Since(time.Unix(0, c.LastAt)) < 500*time.Millisecond {
			n++
		}
	}
	return n
}

// patience is the time limit for whatever should only take a moment.
const patience = 10 * time.Second

// poll calls wrong until it returns nil, or patience is over. It returns the last
// error.
func poll(wrong func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := wrong()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
