package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Peers send a record each tick, whether it is answered or not.
const (
	tick       = 5 * time.Millisecond
	recordSize = 64
)

// connsPerCase are half IPv4, half IPv6.
const connsPerCase = 10

// resume measures when the first byte comes after an outage: the peers keep
// sending, the restored program echoes.
func (b *bench) resume() error {
	modes := []string{"none"}
	if err := configure(`resume = "nudge"`); err != nil {
		return err
	}
	if out, err := command(netfreeze, "config", "check"); err == nil {
		modes = append(modes, "nudge")
	} else {
		say("resume: without nudge only, this netfreeze does not know it: %s", strings.TrimSpace(out))
	}
	say("resume: outages of %v, all at the same time, resume = %v", b.outages, modes)
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
			if o.load, o.done, err = b.newLoad(1, connsPerCase, appSide); err != nil {
				return err
			}
			cases = append(cases, o)
		}
	}
	// CRIU runs for one case at a time: the others only wait meanwhile.
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
			b.resumed(cases, mode, family)
		}
	}
	return nil
}

// resumed makes groups of what the cases of one series have measured.
func (b *bench) resumed(cases []*outage, mode string, family int) {
	unlock := &Group{
		Name: fmt.Sprintf("resume-%s-%d", mode, family), Title: fmt.Sprintf("resume = %q, IPv%d", mode, family), Unit: "ms",
		About: "From network-unlock to the first new byte that made it, by length of the outage.",
	}
	post := &Group{
		Name: fmt.Sprintf("resumed-%s-%d", mode, family), Title: fmt.Sprintf("resume = %q, IPv%d", mode, family), Unit: "ms",
		About: "From post-resume to the first new byte that made it, by length of the outage; below 0: it came before.",
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

// outage is one case. Times are the monotonic clock's, in nanoseconds.
type outage struct {
	length time.Duration // from the freeze to CRIU's start
	mode   string
	load   *load
	done   func()

	unlock, postResume int64
	first              []int64 // by connection: the first byte after network-unlock
}

func (o *outage) run(criu *sync.Mutex) error {
	l := o.load
	stamps, script, err := newStamp()
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(stamps)) //nolint:errcheck // on the lab's tmpfs
	// Listed last, it runs before the hook.
	v := variant{lock: "skip", scripts: []string{hook, script}}
	talks := make([]*talk, len(l.conns))
	for i, c := range l.conns {
		talks[i] = newTalk(c)
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
	for _, t := range talks {
		err = errors.Join(err, t.mark())
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
	for i, t := range talks {
		if err := waitUntilFor(2*o.length+patience, "traffic after an outage of "+o.length.String(), func() bool {
			return t.after(o.unlock) != 0
		}); err != nil {
			return fmt.Errorf("connection %d, resume = %q: %w", i, o.mode, err)
		}
		o.first = append(o.first, t.after(o.unlock))
	}
	say("resume: %s, %s: done", o.length, o.mode)
	return nil
}

// resumeIsKnown reports whether netfreeze.toml may say how to resume.
var resumeIsKnown = sync.OnceValue(func() bool {
	if configure(`resume = "none"`) != nil {
		return false
	}
	_, err := command(netfreeze, "config", "check")
	return err == nil
})

// newStamp copies the action-script stamp to a directory of its own.
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

// readStamps returns when the last network-unlock and post-resume were.
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
		return 0, 0, fmt.Errorf("no stamp of network-unlock and post-resume among %q", data)
	}
	return unlock, post, nil
}

// talk keeps one connection busy and notes when something arrives.
type talk struct {
	conn *net.TCPConn
	// known is how much had reached the other end before the freeze; it may
	// answer that out of its own buffers, however the peer's timer stands.
	known uint64

	mu       sync.Mutex
	arrivals []arrival
}

// arrival is when something came, and how much had come then in all.
type arrival struct {
	at    int64
	total uint64
}

func newTalk(c net.Conn) *talk {
	t := &talk{conn: c.(*net.TCPConn)}
	_ = c.SetReadDeadline(time.Time{})
	go func() {
		record := make([]byte, recordSize)
		for {
			if _, err := c.Write(record); err != nil {
				return
			}
			time.Sleep(tick)
		}
	}()
	go func() {
		buf := make([]byte, 64<<10)
		total := uint64(1) // from the connection's beginning
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			total += uint64(n)
			t.mu.Lock()
			t.arrivals = append(t.arrivals, arrival{monotonic(), total})
			t.mu.Unlock()
		}
	}()
	return t
}

// mark remembers what the other end has acknowledged until now.
func (t *talk) mark() error {
	raw, err := t.conn.SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	err2 := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err = errors.Join(err, err2); err == nil {
		t.known = info.Bytes_acked
	}
	return err
}

// after returns when the first answer arrived, after a time, to something that
// the other end did not know at the mark; 0 if there was none yet.
func (t *talk) after(when int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, _ := slices.BinarySearchFunc(t.arrivals, when, func(a arrival, when int64) int { return cmp.Compare(a.at, when) })
	for _, a := range t.arrivals[i:] {
		if a.total > t.known {
			return a.at
		}
	}
	return 0
}

func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return now.Nano()
}
