// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
)

// outagesVar is the environment variable that says how many times TestOutage
// and TestQuiet measure each length of an outage, and TestPeers each kind of peer. If it
// is set, the longest outage is measured too, and by TestOutage all modes.
const outagesVar = "NETFREEZE_OUTAGES"

// origin is the moment from which the time to the first byte is counted: before
// it, none could have come.
type origin int

const (
	sinceThaw  origin = iota // the kernel takes part in the connection again
	sinceRuns                // the restored program runs
	sinceWoken               // the restored program has been told to send
)

// directions are the cases of who sends when, each measured over IPv4 and IPv6.
var directions = []struct {
	name, conn string
	ways       way // the directions that have to carry bytes again
	from       origin
}{
	{"peer pushes", "pull,interval=2ms", toApp, sinceThaw},
	{"restored pushes", "push,interval=2ms", toPeer, sinceRuns},
	{"half-closed, peer pushes", "pull,interval=2ms,half", toApp, sinceThaw},
	{"both push", "bulk,size=64,interval=2ms", toApp | toPeer, sinceRuns},
	{"request, reply", "reqrep,interval=2ms", toApp | toPeer, sinceRuns},
	{"peer wakes meanwhile", "pull,interval=2ms,nap", toApp, sinceThaw},
	{"restored wakes later", "push,interval=2ms,nap", toPeer, sinceWoken},
}

// way is a direction of bytes, or both.
type way int

const (
	toApp way = 1 << iota
	toPeer
)

// TestOutage measures how long after the thaw the first byte gets through, for
// outages of different lengths, with the nudge and without.
func TestOutage(t *testing.T) {
	lengths, runs := []time.Duration{time.Second / 2, 2 * time.Second, 8 * time.Second}, 2
	modes := []mode{nudgeMode, noneMode}
	if os.Getenv(outagesVar) != "" {
		lengths, runs = append(lengths, 30*time.Second), outageRuns(t, runs)
		modes = append(modes, quietMode) // which TestQuiet is about
	}
	for _, m := range modes {
		eachOutage(t, m, runs, lengths, (*outages).measure, func(t *testing.T, o *outages) {
			o.report(t, lengths, m != noneMode)
		})
	}
}

// mode is a way in which peers get going again, and the lines of netfreeze.toml for it.
type mode struct{ name, config string }

var (
	quietMode = mode{"quiet", `quiet = "auto"`}
	nudgeMode = mode{"nudge", `quiet = "off"`}
	noneMode  = mode{"none", "quiet = \"off\"\nresume = \"none\""}
)

// outages holds what is measured in one mode.
type outages struct {
	mode mode
	log  string        // path of netfreeze's log
	criu sync.Mutex    // one CRIU at a time: the machine is small
	room chan struct{} // limits the outages that go on at a time

	mu   sync.Mutex
	took map[string][]time.Duration // by the case that was measured
}

// eachOutage measures each case the given number of times, in one mode, and then calls
// report.
func eachOutage[C fmt.Stringer](t *testing.T, m mode, runs int, cases []C,
	measure func(*outages, *testing.T, C), report func(*testing.T, *outages),
) {
	t.Run(m.name, func(t *testing.T) {
		o := &outages{
			mode: m, log: filepath.Join(t.TempDir(), "log"), room: make(chan struct{}, 6), took: map[string][]time.Duration{},
		}
		withNetfreeze(t, settings{policy: "kill", more: m.config, log: o.log}, plainCRIU{}, runtimeEngine("runc"))
		t.Run("all", func(t *testing.T) {
			for run := range runs {
				for _, c := range cases {
					t.Run(fmt.Sprintf("%s/%d", c, run), func(t *testing.T) {
						t.Parallel()
						o.room <- struct{}{}
						defer func() { <-o.room }()
						measure(o, t, c)
					})
				}
			}
		})
		report(t, o)
	})
}

// note adds a measurement.
func (o *outages) note(key string, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.took[key] = append(o.took[key], took)
}

func key(length time.Duration, direction string) string { return length.String() + " " + direction }

func (o *outages) measure(t *testing.T, length time.Duration) {
	begin, p := o.dump(t)
	time.Sleep(length/2 - time.Since(begin))
	p.client.signal(syscall.SIGUSR2)
	time.Sleep(length - time.Since(begin))
	from := o.restore(t, p)
	p.awaitTraffic(2*length+patience, from[sinceWoken])
	p.checkAllBytes()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
	carried := p.carried(from[sinceThaw])
	for i, d := range directions {
		var worst time.Duration
		for _, id := range []int{2 * i, 2*i + 1} {
			at, err := carried[uint64(id)].lastOf(d.ways)
			if err != nil {
				t.Errorf("%s, connection %d: %v", d.name, id, err)
			}
			worst = max(worst, at.Sub(from[d.from]))
		}
		o.note(key(length, d.name), worst)
		if d.from == sinceThaw && worst > soon && length > time.Second {
			t.Logf("%s: first byte %v after the thaw at %s; what netfreeze said:\n%s", d.name, worst, from[sinceThaw].Format("15:04:05.000000"), o.said(t))
		}
	}
}

// said returns what the settlers have logged so far.
func (o *outages) said(t *testing.T) string {
	t.Helper()
	log, err := os.ReadFile(o.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}

// dump starts a pair, dumps the app and moves it to its new namespace.
func (o *outages) dump(t *testing.T) (begin time.Time, p *pair) {
	o.criu.Lock()
	defer o.criu.Unlock()
	var conns []string
	for _, d := range directions {
		conns = append(conns, d.conn)
	}
	p = newPair(t, plainCRIU{}, true, conns)
	p.server.signal(syscall.SIGUSR2)
	p.client.signal(syscall.SIGUSR2)
	time.Sleep(50 * time.Millisecond) // until the naps have begun
	begin = time.Now()
	p.dumpAndMove(freeze(t))
	return begin, p
}

// restore restores the app and wakes it. It returns since when bytes could come.
func (o *outages) restore(t *testing.T, p *pair) map[origin]time.Time {
	o.criu.Lock()
	defer o.criu.Unlock()
	runs := p.runs()
	if err := p.dumped.engine.restore(p.dumped); err != nil {
		t.Fatalf("restore: %v", err)
	}
	from := map[origin]time.Time{sinceThaw: thawed(t, o.log), sinceRuns: <-runs}
	time.Sleep(100 * time.Millisecond)
	from[sinceWoken] = time.Now()
	p.server.signal(syscall.SIGUSR2)
	time.Sleep(100 * time.Millisecond) // the other cases leave the machine alone meanwhile
	return from
}

// thawed returns when the last thaw was, according to the settler's log.
func thawed(t *testing.T, path string) time.Time {
	t.Helper()
	return logged(t, path, " thawed ")
}

// logged returns the time of the last line of the log that contains the words.
func logged(t *testing.T, path, words string) time.Time {
	t.Helper()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var last time.Time
	for line := range strings.Lines(string(log)) {
		if at, rest, _ := strings.Cut(line, " "); strings.Contains(rest, words) {
			if last, err = time.Parse(time.RFC3339Nano, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if last.IsZero() {
		t.Fatalf("no line of the log contains %q:\n%s", words, log)
	}
	return last
}

// runs returns a channel that receives the time when the dumped program runs
// again.
func (p *pair) runs() <-chan time.Time {
	at := make(chan time.Time, 1)
	ticks := p.dumped.stats.Ticks()
	go func() {
		for p.dumped.stats.Ticks() == ticks {
			time.Sleep(200 * time.Microsecond)
		}
		at <- time.Now()
	}()
	return at
}

// carried says when a connection first carried new bytes after a thaw.
type carried struct {
	acked uint32 // acknowledged by the app in its first segment after the thaw
	known uint32 // acknowledged by the peer before the thaw
	begun bool
	at    [2]time.Time // to the app, to the peer
}

// lastOf returns the last of the times at which these directions first carried
// new bytes.
func (c *carried) lastOf(ways way) (last time.Time, err error) {
	for i, at := range c.at {
		if ways&(1<<i) == 0 {
			continue
		}
		if at.IsZero() {
			return last, errors.New("no new byte was captured")
		}
		if at.After(last) {
			last = at
		}
	}
	return last, nil
}

// carried finds in the capture when each connection, by its number, first carried
// new bytes after a thaw. Bytes have reached the app when it acknowledges more
// than in its first segment, and go to the peer when the app sends what the peer
// has not acknowledged yet.
func (p *pair) carried(thaw time.Time) map[uint64]*carried {
	conns, byID := map[farEnd]*carried{}, map[uint64]*carried{}
	for end, id := range p.farEnds() {
		c := &carried{}
		conns[end], byID[id] = c, c
	}
	for at, packet := range p.packets.packets() {
		tcp, ok := packet.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ok {
			continue
		}
		v6 := packet.Layer(layers.LayerTypeIPv6) != nil
		if c := conns[farEnd{v6, uint16(tcp.SrcPort)}]; c != nil && at.Before(thaw) {
			c.known = tcp.Ack
			continue
		}
		c := conns[farEnd{v6, uint16(tcp.DstPort)}]
		if c == nil || at.Before(thaw) {
			continue
		}
		if !c.begun {
			c.begun, c.acked = true, tcp.Ack
		}
		length := payload(packet)
		if c.at[0].IsZero() && int32(tcp.Ack-c.acked) > 0 {
			c.at[0] = at
		}
		if c.at[1].IsZero() && length > 0 && int32(tcp.Seq+length-c.known) > 0 {
			c.at[1] = at
		}
	}
	return byID
}

// farEnd is the peer's end of a connection to a server that was dumped.
type farEnd struct {
	v6   bool
	port uint16
}

// farEnds returns the numbers of the connections. The server knows the port in the
// capture, even if it is that of a relay.
func (p *pair) farEnds() map[farEnd]uint64 {
	ends := map[farEnd]uint64{}
	for _, s := range p.server.stats.Snapshots() {
		// Each kind is opened over IPv4, then over IPv6.
		ends[farEnd{s.ID%2 == 1, s.RemotePort}] = s.ID
	}
	return ends
}

// report logs the table, and checks the best of the runs if the nudge was on: the
// machine may be busy otherwise. After a short outage
// peers may have timed out once or not at all, in which case a nudge does not
// help.
func (o *outages) report(t *testing.T, lengths []time.Duration, nudged bool) {
	t.Helper()
	const short = time.Second
	for _, d := range directions {
		for _, length := range lengths {
			took := o.took[key(length, d.name)]
			if len(took) == 0 {
				t.Errorf("%s, %s: nothing was measured", length, d.name)
				continue
			}
			t.Logf("%-24s outage %5s: first byte after %s (%d runs)", d.name, length, spread(took), len(took))
			if nudged && length > short && slices.Min(took) > soon {
				t.Errorf("%s, %s: no run took less than %v", length, d.name, soon)
			}
		}
	}
}
