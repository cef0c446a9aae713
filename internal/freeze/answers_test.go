// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/answer"
	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
	"github.com/criu-netfreeze/criu-netfreeze/rules/fake"
)

// many are connections of a server in the first namespace of a pair.
func many() (streams []tcp.Stream) {
	for port := range uint16(300) {
		for _, e := range [][2]string{{nstest.A4, nstest.B4}, {nstest.A6, nstest.B6}} {
			streams = append(streams, tcp.Stream{
				Tuple: tcp.NewTuple(netip.AddrPortFrom(netip.MustParseAddr(e[0]), 443), netip.AddrPortFrom(netip.MustParseAddr(e[1]), 20000+port)),
				State: tcp.Established, SndUna: 1, SndNxt: 1, RcvNxt: 5, Window: 100, MSS: 1000,
			})
		}
	}
	return streams
}

// probing has the peers of all connections probe as fast as they can, until the test ends.
func probing(t *testing.T, ns *netns.Namespace, streams []tcp.Stream) {
	t.Helper()
	var probes [][]byte
	for _, s := range streams {
		probes = append(probes, wire.Segment{Tuple: s.Reverse(), Seq: s.RcvNxt - 1, Ack: s.SndNxt, Flags: wire.FlagACK, Window: 9}.Packet())
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out *wire.Socket
	must(t, ns.Do(func() (err error) {
		out, err = wire.Open()
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			_ = out.Send(probes[i%len(probes)]) // a queue may be full
			if i%10 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done; out.Close() })
}

// windows counts, at the peers, the answers that close a window, and those that do so
// after one that opens it.
type windows struct {
	closed, opened, late atomic.Int32
}

func hearWindows(t *testing.T, ns *netns.Namespace) *windows {
	t.Helper()
	var ports []uint16
	for port := range uint16(300) {
		ports = append(ports, 20000+port)
	}
	tap, err := netns.In(ns, func() (*os.File, error) { return wire.TapPorts(wire.Arriving, ports) })
	must(t, err)
	w := &windows{}
	var done sync.WaitGroup
	done.Go(func() {
		for buf := make([]byte, 200); ; {
			n, err := tap.Read(buf)
			if err != nil {
				return // closed
			}
			s, _, ok := wire.Parse(buf[:n])
			switch {
			case !ok || s.Flags != wire.FlagACK:
			case s.Window != 0:
				w.opened.Add(1)
			case w.opened.Load() > 0:
				w.late.Add(1)
			default:
				w.closed.Add(1)
			}
		}
	})
	t.Cleanup(func() { _ = tap.Close(); done.Wait() })
	return w
}

func (w *windows) await(t *testing.T, n int32) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); w.closed.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the peers got %d answers", w.closed.Load())
		}
	}
}

// watch watches a record until it is over, or the test is.
func watch(t *testing.T, k *Keeper, id string, a *Answering) (done chan struct{}) {
	t.Helper()
	done = make(chan struct{})
	log := logrus.New()
	log.SetOutput(t.Output())
	go func() {
		defer close(done)
		k.Watch(id, Watch{Answers: a}, log)
	}()
	t.Cleanup(func() {
		_ = (&record.Record{ID: id}).Remove()
		<-done
	})
	return done
}

// TestNoAnswerAfterThaw promises that no answer leaves once a window was opened again, by
// a thaw or by a restore, while all peers probe at a high rate.
func TestNoAnswerAfterThaw(t *testing.T) {
	for what, tc := range map[string]struct {
		phase record.Phase
		end   func(t *testing.T, k *Keeper, f *Freeze)
	}{
		"thaw": {record.Held, func(t *testing.T, k *Keeper, f *Freeze) {
			r, err := record.Load(f.Record.ID)
			must(t, err)
			must(t, k.Thaw(0, r))
		}},
		"restore": {record.Ended, func(t *testing.T, k *Keeper, f *Freeze) {
			r := newFreeze(t, k, f.ns, record.Record{ID: "2@2", Op: record.Restore, Owner: "b", Conns: f.Record.Conns})
			must(t, r.Arm())
			time.Sleep(100 * time.Millisecond)
			must(t, r.Lift())
		}},
	} {
		t.Run(what, func(t *testing.T) {
			for range 3 {
				fresh(t)
				k, streams := New(rules.Kernel{}), many()
				a, b := nstest.Pair(t)
				p := task(t, a, false)
				f := hold(t, k, a, p)
				for _, s := range streams {
					f.Record.Conns = append(f.Record.Conns, s.Tuple)
				}
				f.Record.Phase = tc.phase
				must(t, f.AllowAnswers())
				must(t, f.Seal())
				var out *wire.Socket
				must(t, a.Do(func() (err error) {
					out, err = wire.Open()
					return err
				}))
				w := hearWindows(t, b)
				watch(t, k, f.Record.ID, &Answering{Streams: streams, Ended: true})
				probing(t, b, streams)
				w.await(t, 200)
				tc.end(t, k, f)
				must(t, out.Send(wire.ACK(streams[0])))
				out.Close()
				time.Sleep(700 * time.Millisecond)
				if w.opened.Load() == 0 || w.late.Load() > 0 {
					t.Errorf("%d windows were opened; %d closed before and %d after that", w.opened.Load(), w.closed.Load(), w.late.Load())
				}
			}
		})
	}
}

// TestAnswersResume opens the windows of a tree that ran on, once it is thawed by somebody
// who knows nothing of its connections; but not those of peers with data in flight.
func TestAnswersResume(t *testing.T) {
	fresh(t)
	k, streams := New(rules.Kernel{}), many()[:4]
	a, b := nstest.Pair(t)
	p := task(t, a, false)
	f := newFreeze(t, k, a, record.Record{ID: "1@1", Op: record.Dump, Phase: record.Isolated, Owner: "a", Tree: []proc.Ref{p}})
	must(t, f.Arm())
	must(t, f.AllowAnswers())
	must(t, f.Seal())
	w := hearWindows(t, b)
	done := watch(t, k, f.Record.ID, &Answering{Streams: streams})
	flying := wire.Segment{Tuple: streams[0].Reverse(), Seq: streams[0].RcvNxt, Ack: 1, Flags: wire.FlagACK, Data: []byte("data")}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		must(t, b.Do(func() error {
			out, err := wire.Open()
			if err != nil {
				return err
			}
			defer out.Close()
			return out.Send(flying.Packet())
		}))
		r, err := record.Load("1@1")
		must(t, err)
		if len(r.InFlight) == 1 && r.InFlight[0] == streams[0].Tuple && w.closed.Load() > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("in flight: %v; %d answers", r.InFlight, w.closed.Load())
		}
	}
	time.Sleep(2 * watchInterval)
	r, err := record.Load("1@1")
	must(t, err)
	must(t, k.Thaw(4, r))
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it is watched for ever")
	}
	for deadline := time.Now().Add(10 * time.Second); w.opened.Load() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d windows were opened", w.opened.Load())
		}
	}
	time.Sleep(100 * time.Millisecond)
	if n := w.opened.Load(); n != 3 {
		t.Errorf("%d windows were opened, one of them of a peer with data in flight", n)
	}
}

// TestGate closes the gate by whatever changes: the record, the rules, or the time left.
func TestGate(t *testing.T) {
	for what, tc := range map[string]struct {
		do    func(f *Freeze, filter *fake.Filter) error
		sends bool
		over  bool
	}{
		"nothing":       {func(*Freeze, *fake.Filter) error { return nil }, true, false},
		"a note":        {func(f *Freeze, _ *fake.Filter) error { f.Record.Note = "x"; return f.Save() }, true, false},
		"gone":          {func(f *Freeze, _ *fake.Filter) error { return f.Record.Remove() }, false, true},
		"silenced":      {func(f *Freeze, _ *fake.Filter) error { return silence(f.Record) }, false, true},
		"another mark":  {func(f *Freeze, _ *fake.Filter) error { f.Record.Answer++; return f.Save() }, false, true},
		"another phase": {func(f *Freeze, _ *fake.Filter) error { f.Record.Phase = record.Running; return f.Save() }, false, true},
		"damaged":       {func(f *Freeze, _ *fake.Filter) error { return os.WriteFile(record.Dir+"/1@1.json", []byte("{"), 0o600) }, false, true},
		"nearly over":   {func(f *Freeze, _ *fake.Filter) error { f.Record.ExpireIn(lastAnswer / 2); return f.Save() }, false, true},
		"no rules":      {func(f *Freeze, filter *fake.Filter) error { return f.filter.ThawAll(isolated(f)) }, false, true},
		"the rules cannot be read": {func(_ *Freeze, filter *fake.Filter) error {
			filter.Fail("Look", unix.EIO)
			return nil
		}, false, true},
	} {
		t.Run(what, func(t *testing.T) {
			fresh(t)
			filter := fake.New()
			k, ns := New(filter), nstest.New(t)
			f := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Dump, Phase: record.Held, Tree: []proc.Ref{self(t)}})
			must(t, f.Arm())
			must(t, f.AllowAnswers())
			must(t, f.Seal())
			if !strings.Contains(filter.String(), "sealed answers") {
				t.Fatalf("in force: %s", filter)
			}
			g := &gate{answerer: k.answerer(&Answering{}, logrus.New()), table: newTable(), ns: ns, id: "1@1", mark: f.Record.Answer}
			pass := func() (sent, more bool) {
				more = g.pass(func() { sent = true })
				return sent, more
			}
			if sent, more := pass(); !sent || !more {
				t.Fatal("the gate is closed")
			}
			g.looked = time.Time{} // as after some time
			must(t, tc.do(f, filter))
			if sent, more := pass(); sent != tc.sends || more == tc.over {
				t.Errorf("sent %v, goes on %v", sent, more)
			}
			if !tc.over {
				must(t, f.locked(func() error { // as whoever thaws
					if sent, more := pass(); sent || !more {
						t.Errorf("while the namespace is locked: sent %v, goes on %v", sent, more)
					}
					return nil
				}))
			}
		})
	}
}

// TestMark draws one mark for a namespace, and for connections one that the rules of the
// host's own namespace leave alone.
func TestMark(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	f := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Dump, Phase: record.Held, Tree: []proc.Ref{self(t)}})
	must(t, f.Arm())
	must(t, f.AllowAnswers())
	other := newFreeze(t, k, ns, record.Record{ID: "2@2", Op: record.Dump, Phase: record.Held, Tree: []proc.Ref{self(t)}})
	must(t, other.Arm())
	must(t, other.AllowAnswers())
	if f.Record.Answer == 0 || f.Record.Answer != other.Record.Answer {
		t.Errorf("marks %#x and %#x", f.Record.Answer, other.Record.Answer)
	}
	own, err := netns.OpenSelf()
	must(t, err)
	for range 50 {
		c := newFreeze(t, k, own, record.Record{ID: "3@3", Op: record.Dump, Phase: record.Held, Owner: "c", Conns: conns(1), Tree: []proc.Ref{self(t)}})
		must(t, c.Arm())
		must(t, c.AllowAnswers())
		must(t, c.Seal())
		if m := c.Record.Answer; m == 0 || m&hostMarks != 0 || m == rules.Mark {
			t.Errorf("mark %#x", m)
		}
	}
	if s := filter.String(); !strings.Contains(s, "conns nftables c 1 frozen 1m0s sealed answers") {
		t.Errorf("in force: %s", s)
	}
}

// noAnswers is a packet filter that can seal, but let out no answers.
type noAnswers struct{ *fake.Filter }

func (n noAnswers) Open(ns *netns.Isolated, k backend.Kind) (rules.Freezer, error) {
	f, err := n.Filter.Open(ns, k)
	return noAnswersFreezer{f}, err
}

type noAnswersFreezer struct{ rules.Freezer }

func (f noAnswersFreezer) Seal(pass uint32) error {
	if pass != 0 {
		return errors.New("no module for that")
	}
	return f.Freezer.Seal(0)
}

// TestSealWithoutAnswers seals all the same where answers cannot be let out, and answers
// nobody then.
func TestSealWithoutAnswers(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(noAnswers{filter}), nstest.New(t)
	f := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Dump, Phase: record.Held, Tree: []proc.Ref{self(t)}})
	must(t, f.Arm())
	must(t, f.AllowAnswers())
	must(t, f.Seal())
	r, err := record.Load("1@1")
	must(t, err)
	if r.Answer != 0 || f.Record.Answer != 0 || !strings.HasSuffix(filter.String(), " sealed") {
		t.Errorf("mark %#x, in force: %s", r.Answer, filter)
	}
}

func newTable() *answer.Table { return answer.New(nil, nil, time.Now(), time.Now()) }

func isolated(f *Freeze) *netns.Isolated {
	i, err := f.ns.Isolate()
	if err != nil {
		panic(err)
	}
	return i
}
