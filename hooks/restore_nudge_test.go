// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// TestRestoreNudges prepares what is to be sent before the thaw, by a handle of its
// own: leaving the namespace, or closing the transaction, must not take it away.
func TestRestoreNudges(t *testing.T) {
	s := newTarget(t)
	s.cfg.Resume, s.cfg.AnnounceCount, s.cfg.AnnounceInterval = config.Nudge, 2, 10*time.Millisecond
	s.story("pre-restore")
	r := s.tx.(*Restore)
	first := r.nudger.prepared
	if first == nil || first.ns.FD() == r.freeze.NetNS().FD() {
		t.Fatal("what is sent at the thaw has no handle of its own")
	}
	must(t, r.freeze.Leave()) // as at post-setup-namespaces, while the first one is still being prepared
	other, err := netns.OpenPID(s.tree.Process.Pid, 0)
	must(t, err)
	must(t, r.freeze.Open(other))
	r.announceFrozen()
	if r.nudger.prepared == first {
		t.Error("what was prepared for another namespace is sent")
	}
	s.story("network-unlock", "post-resume")
	if !r.Finished() {
		t.Fatalf("not finished: %s", s.log)
	}
	r.Close()
	s.tx = nil
	if strings.Contains(s.log.String(), "bad file descriptor") {
		t.Errorf("a closed namespace was used: %s", s.log)
	}
}

// TestRestoreRevivesNudger has the settler killed in the middle of a restore: the next
// one nudges all the same, by the images where they are, and not where CRIU says.
func TestRestoreRevivesNudger(t *testing.T) {
	s := newTarget(t)
	s.cfg.Resume = config.Nudge
	s.story("pre-restore", "lose-settler")
	req := s.request("network-unlock")
	req.ImageDir = fmt.Sprintf("/proc/%d/fd/1", s.criu.Process.Pid)
	var err error
	s.tx, err = Reopen(s.env)
	must(t, err)
	must(t, s.tx.Do(req))
	r := s.tx.(*Restore)
	if r.nudger == nil || !r.nudger.started {
		t.Fatalf("nothing is nudged; log:\n%s", s.log)
	}
	if n := len(r.record().Conns); n == 0 {
		t.Error("no connection is known")
	}
}

// TestRestoreHoldsImages reads where the connections stood when CRIU has ended: on a busy
// machine that is so when the time comes to tell the peers.
func TestRestoreHoldsImages(t *testing.T) {
	s := newTarget(t)
	s.story("pre-restore", "die")
	if streams, err := s.tx.(*Restore).images.Streams(); err != nil || len(streams) == 0 {
		t.Errorf("%d connections: %v", len(streams), err)
	}
}

// TestRestoreOpens tells those peers once more of their windows whose windows are open,
// and those of others in the same namespace, which a dump has made quiet with them.
func TestRestoreOpens(t *testing.T) {
	ns, peer := nstest.Pair(t)
	conns := nstest.Connect(t, ns, peer, net.JoinHostPort(nstest.B4, "0"), 3)
	streams := []tcp.Stream{{Tuple: conns[0], Window: 100}, {Tuple: conns[1]}}
	for _, tc := range []struct {
		whole bool
		quiet config.Quiet
		want  []tcp.Tuple
	}{
		{true, config.AutoQuiet, []tcp.Tuple{conns[0], conns[2]}},
		{true, config.NoQuiet, []tcp.Tuple{conns[0]}},
		{false, config.AutoQuiet, []tcp.Tuple{conns[0]}},
	} {
		n := &nudger{log: logrus.New()}
		n.set.Quiet = tc.quiet
		if got := n.toOpen(&prepared{ns: ns, whole: tc.whole, streams: streams}); !slices.Equal(got, tc.want) {
			t.Errorf("whole %v, quiet %s: %v, want %v", tc.whole, tc.quiet, got, tc.want)
		}
	}
}
