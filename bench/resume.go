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

// mode is a way in which peers get going again, and the lines of netfreeze.toml for it.
type mode struct {
	name, title string
	lines       []string
}

// modes are what is compared, where netfreeze knows it.
var modes = []mode{
	{"none", "neither", []string{`quiet = "off"`, `resume = "none"`}},
	{"nudge", "nudge only", []string{`quiet = "off"`}},
	{"quiet", "quiet peers", []string{`quiet = "auto"`}},
}

// knownModes returns the modes that this netfreeze knows.
func knownModes() (known []mode, err error) {
	for _, m := range modes {
		if err := configure(m.lines...); err != nil {
			return nil, err
		}
		if out, err := command(netfreeze, "config", "check"); err != nil {
			progress("without %s, which this netfreeze does not know: %s", m.title, strings.TrimSpace(out))
			continue
		}
		known = append(known, m)
	}
	return known, nil
}

// resume measures when the first byte gets through after an outage. The peers
// keep sending; the restored program only reads.
func (b *bench) resume() error {
	known, err := knownModes()
	if err != nil {
		return err
	}
	progress("resume: outages of %v, all at the same time", b.outages)
	var cases []*outage
	for _, length := range b.outages {
		for _, m := range known {
			cases = append(cases, &outage{length: length, mode: m})
		}
	}
	if err := b.runOutages(cases); err != nil {
		return err
	}
	for _, m := range known {
		for _, family := range []int{4, 6} {
			b.addResumeGroups(cases, m, family)
		}
	}
	for _, m := range known {
		g := &Group{
			Name: "repeated-" + m.name, Title: m.title, Unit: "segments",
			About: "What the peer's kernel has retransmitted for a connection when its first byte gets through, by length of the outage.",
		}
		for _, o := range cases {
			for i := range o.repeated {
				if o.mode.name == m.name {
					g.add(o.length.String(), o.repeated[i])
				}
			}
		}
		g.summarize("")
		b.results.add(g)
	}
	return nil
}

// runOutages runs all cases at the same time. CRIU runs for one at a time, while the
// others only wait.
func (b *bench) runOutages(cases []*outage) error {
	defer func() {
		for _, o := range cases {
			if o.done != nil {
				o.done()
			}
		}
	}()
	for _, o := range cases {
		var err error
		if o.load, o.done, err = b.newPeerLoad(connsPerCase, o.peer); err != nil {
			return err
		}
	}
	var criu sync.Mutex
	errs := make([]error, len(cases))
	var all sync.WaitGroup
	for i, o := range cases {
		all.Go(func() { errs[i] = o.run(&criu) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// addResumeGroups adds what was measured in one mode and with one IP version to the
// results.
func (b *bench) addResumeGroups(cases []*outage, m mode, family int) {
	title := fmt.Sprintf("%s, IPv%d", m.title, family)
	unlock := &Group{
		Name: fmt.Sprintf("resume-%s-%d", m.name, family), Title: title, Unit: "ms",
		About: "From network-unlock to the first byte that gets through, by length of the outage.",
	}
	post := &Group{
		Name: fmt.Sprintf("resumed-%s-%d", m.name, family), Title: title, Unit: "ms",
		About: "From post-resume to the first byte that gets through, by length of the outage; below 0 if it came earlier.",
	}
	for _, o := range cases {
		if o.mode.name != m.name {
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
	mode   mode
	peer   peer
	load   *load
	done   func()

	unlock, postResume int64
	first              []int64   // for each connection, when the first byte got through
	repeated           []float64 // and how many segments the peer had retransmitted until then
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
	lines := append([]string{`policy = "kill"`}, o.mode.lines...)
	before := make([]uint64, len(pushers))
	criu.Lock()
	err = configure(lines...)
	for i, t := range pushers {
		if err == nil {
			before[i], err = t.repeated()
		}
	}
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
			return fmt.Errorf("connection %d, %s: %w", i, o.mode.title, err)
		}
		after, err := t.repeated()
		if err != nil {
			return err
		}
		o.first = append(o.first, t.first.Load())
		o.repeated = append(o.repeated, float64(after-before[i]))
	}
	progress("%s%s, %s: done", o.peer, o.length, o.mode.title)
	return nil
}

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
	unlock, err1 := readStamp(path, "network-unlock")
	post, err2 := readStamp(path, "post-resume")
	return unlock, post, errors.Join(err1, err2)
}

// readStamp returns the time of an action's last stamp, in nanoseconds by the monotonic
// clock.
func readStamp(path, action string) (last int64, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		var what string
		var at int64
		if _, err := fmt.Sscan(line, &what, &at); err != nil {
			return 0, fmt.Errorf("stamp %q: %w", line, err)
		}
		if what == action {
			last = at
		}
	}
	if last == 0 {
		return 0, fmt.Errorf("the stamp of %s is missing in %q", action, data)
	}
	return last, nil
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
	info, err := tcpInfo(t.conn)
	if err != nil {
		return 0, err
	}
	return info.Bytes_acked, nil
}

// repeated returns how many segments our kernel has retransmitted.
func (t *pusher) repeated() (uint64, error) {
	info, err := tcpInfo(t.conn)
	if err != nil {
		return 0, err
	}
	return uint64(info.Total_retrans), nil
}

func tcpInfo(conn *net.TCPConn) (*unix.TCPInfo, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var info *unix.TCPInfo
	err2 := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	return info, errors.Join(err, err2)
}

func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return now.Nano()
}
