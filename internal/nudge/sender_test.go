// SPDX-License-Identifier: Apache-2.0

package nudge

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// TestSendLocked sends while rules that are not ours drop everything, as CRIU's own
// lock does when we thaw.
func TestSendLocked(t *testing.T) {
	ns := nstest.New(t)
	isolated, err := ns.Isolate()
	nstest.Must(t, err)
	lock, err := rules.Open(isolated, backend.NFTables)
	nstest.Must(t, err)
	defer lock.Close() // nothing to lose
	s, err := Open(ns)
	nstest.Must(t, err)
	defer s.Close()
	var packets [][]byte
	for _, addr := range []string{"127.0.0.1:5", "[::1]:5"} {
		end := netip.MustParseAddrPort(addr)
		for range 2 {
			packets = append(packets, wire.ACK(tcp.Stream{Tuple: tcp.NewTuple(end, end)}))
		}
	}
	send := func(wait time.Duration) (time.Duration, error) {
		began := time.Now()
		err := s.Send(packets, wait)
		return time.Since(began), err
	}
	if _, err := send(0); err != nil {
		t.Fatalf("nothing is locked: %v", err)
	}
	const locked, wait = 100 * time.Millisecond, 10 * time.Second
	nstest.Must(t, lock.Freeze(time.Minute))
	if took, err := send(0); !errors.Is(err, unix.EPERM) || took > wait/2 {
		t.Errorf("locked: %v after %v, want EPERM at once", err, took)
	}
	if took, err := send(locked); !errors.Is(err, unix.EPERM) || took < locked || took > wait/2 {
		t.Errorf("locked: %v after %v, want EPERM after %v", err, took, locked)
	}
	nstest.Must(t, lock.Freeze(locked))
	if took, err := send(wait); err != nil || took > wait/2 {
		t.Errorf("unlocked meanwhile: %v after %v", err, took)
	}
}
