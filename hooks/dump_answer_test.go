// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// TestDumpAnswers lets out answers where the configuration wants them, and there are
// peers to be answered.
func TestDumpAnswers(t *testing.T) {
	stream := func(remote string, state int) tcp.Stream {
		return tcp.Stream{
			Tuple: tcp.NewTuple(netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort(remote)),
			State: state, RcvNxt: 5, Unacked: []byte("what was sent"),
		}
	}
	peer := stream("192.0.2.2:40000", tcp.Established)
	for what, tc := range map[string]struct {
		policy  config.Policy
		answer  config.Answer
		streams []tcp.Stream
		answers bool
		watch   bool
	}{
		"hold":             {config.Hold, config.AnswerAuto, []tcp.Stream{peer}, true, true},
		"hold, off":        {config.Hold, config.AnswerOff, []tcp.Stream{peer}, false, true},
		"hold, no peer":    {config.Hold, config.AnswerAuto, nil, false, true},
		"hold, local peer": {config.Hold, config.AnswerAlways, []tcp.Stream{stream("127.0.0.1:9", tcp.Established)}, false, true},
		"hold, no answer":  {config.Hold, config.AnswerAlways, []tcp.Stream{stream("192.0.2.2:9", tcp.SynSent)}, false, true},
		"isolate":          {config.Isolate, config.AnswerAuto, []tcp.Stream{peer}, true, true},
		"isolate, off":     {config.Isolate, config.AnswerOff, []tcp.Stream{peer}, false, false},
		"kill":             {config.Kill, config.AnswerAuto, []tcp.Stream{peer}, false, true},
		"kill, always":     {config.Kill, config.AnswerAlways, []tcp.Stream{peer}, true, true},
		"run":              {config.Run, config.AnswerAlways, []tcp.Stream{peer}, false, false},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStage(t, false)
			s.cfg.Policy, s.cfg.Answer = tc.policy, tc.answer
			s.story("pre-dump", "network-lock", "post-dump")
			d := s.tx.(*Dump)
			d.background.Wait()
			got := d.read()
			got.streams = tc.streams
			d.read = func() dumped { return got }
			s.story("network-unlock", "success", "settle")
			mark := uint32(0)
			if r, err := record.Load(s.env.CRIU.String()); err == nil {
				mark = r.Answer
			}
			if is := strings.Contains(s.filter.String(), "sealed answers"); is != tc.answers || mark != 0 != tc.answers {
				t.Errorf("mark %#x, in force %s", mark, s.filter)
			}
			d.Close()
			w, ok := d.Watch()
			if ok != tc.watch || w.Answers != nil != tc.answers {
				t.Fatalf("to be watched: %v, %+v", ok, w)
			}
			if a := w.Answers; a != nil {
				if len(a.Streams) != 1 || a.Streams[0].Tuple != peer.Tuple || a.Streams[0].Unacked != nil || a.Frozen.IsZero() ||
					a.Nudge != config.Default().NudgePackets || a.Ended != (tc.answer == config.AnswerAlways) {
					t.Errorf("to be answered: %+v", a)
				}
				if tc.streams[0].Unacked == nil {
					t.Error("the streams of the images were changed")
				}
			}
		})
	}
}
