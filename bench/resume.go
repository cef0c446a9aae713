// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Each peer sends a record every tick.
const (
	tick       = 5 * time.Millisecond
	recordSize = 64
)

// connsPerCase is how many connections a case has, half of them over IPv6.
const connsPerCase = 10

// resume measures when the first byte gets through after an outage. The peers
// keep sending; the restored program only reads.
func (b *bench) resume() error {
	modes := []string{"none"}
	if err := configure(`resume = "nudge"`); err != nil {
		return err
	}
	if out, err := command(netfreeze, "config", "check"); err == nil {
		modes = append(modes, "nudge")
	} else {
		progress("resume: without the nudge only, which this netfreeze does not have: %s", strings.TrimSpace(out))
	}
	progress("resume: outages of %v, all at the same time, resume = %v", b.outages, modes)
	var cases []*outage
	defer func() {
		for _, o := range cases {
			o.done()
		}
	}()
	for _, length := range b.outages {
		for _, mode := range modes {
			o := &outage{length: length, mode: mode}
			var err error
			if o.load, o.done, err = b.newLoad(shape{1, 1, connsPerCase}, appSide); err != nil {
				return err
			}
			cases = append(cases, o)
		}
	}
	// CRIU runs for one case at a time, while the others only wait.
	var criu sync.Mutex
	errs := make([]error, len(cases))
	var all sync.WaitGroup
	for i, o := range cases {
		all.Go(func() { errs[i] = o.run(&criu) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, mode := range modes {
		for _, family := range []int{4, 6} {
			b.addResumeGroups(cases, mode, family)
		}
	}
	return nil
}

// addResumeGroups adds what was measured with one mode and IP version to the
// results.
func (b *bench) addResumeGroups(cases []*outage, mode string, family int) {
	unlock := &Group{
		Name: fmt.Sprintf("resume-%s-%d", mode, family), Title: fmt.Sprintf("resume = %q, IPv%d", mode, family), Unit: "ms",
		About: "From network-unlock to the first byte that gets through, by length of the outage.",
	}
	post := &Group{
		Name: fmt.Sprintf("resumed-%s-%d", mode, family), Title: fmt.Sprintf("resume = %q, IPv%d", mode, family), Unit: "ms",
		About: "From post-resume to the first byte that gets through, by length of the outage; below 0 if it came earlier.",
	}
	for _, o := range cases {
		if o.mode != mode {
			continue
		}
		for i, first := range o.first {
			if (i%2 == 0) == (family == 4) {
				unlock.add(o.length.String(), float64(first-o.unlock)/1e6)
				post.add(o.length.String(), float64(first-o.postResume)/1e6)
			}
		}
	}
	unlock.summarize("")
	post.summarize("")
	b.results.add(unlock)
	b.results.add(post)
}

// outage is one case. Times are in nanoseconds, by the monotonic clock.
type outage struct {
	length time.Duration // from the freeze to CRIU's start
	mode   string
	load   *load
	done   func()

	unlock, postResume int64
	first              []int64 // for each connection, when the first byte got through
}

func (o *outage) run(criu *sync.Mutex) error {
	l := o.load
	stamps, script, err := newStamp()
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(stamps))
	// The script that is listed last runs first, before the hook.
	v := variant{lock: "skip", scripts: []string{hook, script}}
	pushers := make([]*pusher, len(l.conns))
	for i, c := range l.conns {
		pushers[i] = newPusher(c)
	}
	time.Sleep(10 * tick)
	criu.Lock()
	err = configure(`policy = "kill"`)
	if err == nil {
		_, err = l.dump(v)
	}
	began := time.Now()
	if err == nil {
		err = waitUntil("the end of the dumped tree", func() bool { return l.ended.Load() != nil && !exists(l.pid) })
	}
	criu.Unlock()
	if err != nil {
		return err
	}
	time.Sleep(o.length - time.Since(began))
	criu.Lock()
	lines := []string{`policy = "kill"`}
	if o.mode != "none" {
		lines = append(lines, fmt.Sprintf("resume = %q", o.mode))
	} else if resumeIsKnown() {
		lines = append(lines, `resume = "none"`)
	}
	err = configure(lines...)
	for _, t := range pushers {
		err = errors.Join(err, t.watch())
	}
	if err == nil {
		err = l.restore(v)
	}
	criu.Unlock()
	if err != nil {
		return err
	}
	if o.unlock, o.postResume, err = readStamps(stamps); err != nil {
		return err
	}
	for i, t := range pushers {
		if err := waitUntilFor(2*o.length+patience, "traffic after an outage of "+o.length.String(), func() bool {
			return t.first.Load() != 0
		}); err != nil {
			return fmt.Errorf("connection %d, resume = %q: %w", i, o.mode, err)
		}
		o.first = append(o.first, t.first.Load())
	}
	progress("resume: %s, %s: done", o.length, o.mode)
	return nil
}

// resumeIsKnown reports whether this netfreeze knows the option resume.
var resumeIsKnown = sync.OnceValue(func() bool {
	if configure(`resume = "none"`) != nil {
		return false
	}
	_, err := command(netfreeze, "config", "check")
	return err == nil
})

// newStamp copies the action-script stamp to a directory of its own, and returns
// the paths of the file that it appends to and of the script.
func newStamp() (stamps, script string, err error) {
	dir, err := os.MkdirTemp("", "stamp")
	if err != nil {
		return "", "", err
	}
	program, err := os.ReadFile(filepath.Join(built, "stamp"))
	if err != nil {
		return "", "", err
	}
	script = filepath.Join(dir, "stamp")
	return filepath.Join(dir, "stamps"), script, os.WriteFile(script, program, 0o700)
}

// readStamps returns the times of the last network-unlock and post-resume.
func readStamps(path string) (unlock, post int64, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		var action string
		var at int64
		if _, err := fmt.Sscan(line, &action, &at); err != nil {
			return 0, 0, fmt.Errorf("stamp %q: %w", line, err)
		}
		switch action {
		case "network-unlock":
			unlock = at
		case "post-resume":
			post = at
		}
	}
	if unlock == 0 || post == 0 {
		return 0, 0, fmt.Errorf("stamps of network-unlock and post-resume are missing in %q", data)
	}
	return unlock, post, nil
}

// pusher is a peer that sends all the time to a program that never answers. That
// is the hard case: only the peer's own timer, or a nudge, makes it retransmit
// what was lost in the freeze.
type pusher struct {
	conn  *net.TCPConn
	known uint64       // bytes acknowledged before the restore
	first atomic.Int64 // when more were acknowledged, 0 if none have been yet
}

func newPusher(c net.Conn) *pusher {
	t := &pusher{conn: c.(*net.TCPConn)}
	go func() {
		record := make([]byte, recordSize)
		for {
			if _, err := c.Write(record); err != nil {
				return
			}
			time.Sleep(tick)
		}
	}()
	return t
}

// watch records in the background when the other end acknowledges more than it
// has until now.
func (t *pusher) watch() error {
	var err error
	if t.known, err = t.acknowledged(); err != nil {
		return err
	}
	go func() {
		for {
			n, err := t.acknowledged()
			if err != nil {
				return
			}
			if n > t.known {
				t.first.Store(monotonic())
				return
			}
			time.Sleep(200 * time.Microsecond)
		}
	}()
	return nil
}

// acknowledged returns how many bytes the other end has acknowledged.
func (t *pusher) acknowledged() (uint64, error) {
	raw, err := t.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	err2 := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err = errors.Join(err, err2); err != nil {
		return 0, err
	}
	return info.Bytes_acked, nil
}

func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return now.Nano()
}
