// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/wire"
)

// pause is how long to wait after each time that something was heard: what comes
// meanwhile is answered together, and passes the gate once.
const pause = 5 * time.Millisecond

// maxHeard is how many packets are read in one go at most. There is room for about as
// many in the tap (net.core.rmem_default); more than that is dropped, and comes again.
const maxHeard = 256

// Gate calls send, at once, if answers may leave now; whoever thaws waits until it has
// returned. It returns false if they never may again.
type Gate func(send func()) bool

// Run hears what arrives in ns, where a tap comes before every packet filter, and answers
// with the packet mark, until ctx ends or the gate says that it is over. It returns how
// many answers the kernel has taken.
func (t *Table) Run(ctx context.Context, ns *netns.Namespace, mark uint32, gate Gate) (sent int, err error) {
	var tap *os.File
	var out *wire.Socket
	err = ns.Do(func() (err error) {
		if tap, err = wire.TapPorts(wire.Arriving, t.Ports()); err != nil {
			return err
		}
		if out, err = wire.Open(); err != nil {
			return errors.Join(err, tap.Close())
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("answer the peers of %s: %w", ns, err)
	}
	defer tap.Close()
	defer out.Close()
	if err := out.Mark(mark); err != nil {
		return 0, fmt.Errorf("answer the peers of %s: %w", ns, err)
	}
	raw, err := tap.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("answer the peers of %s: %w", ns, err)
	}
	defer context.AfterFunc(ctx, func() { _ = tap.SetReadDeadline(time.Now()) })()
	send := func(answers [][]byte) func() {
		return func() {
			for _, a := range answers {
				// What the kernel does not take now, for want of a route or of memory, or
				// because a restore has begun, the peer asks for again.
				if out.Send(a) == nil {
					sent++
				}
			}
		}
	}
	for ctx.Err() == nil {
		answers, err := t.hear(raw)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded): // ctx has ended
			return sent, nil
		case err != nil:
			return sent, fmt.Errorf("hear the peers of %s: %w", ns, err)
		case len(answers) > 0 && !gate(send(answers)):
			return sent, nil
		}
		time.Sleep(pause)
	}
	return sent, nil
}

// hear waits for packets, and returns the answers to those that are there; that may be
// none.
func (t *Table) hear(raw syscall.RawConn) (answers [][]byte, err error) {
	var failed error
	headers := make([]byte, 128) // of IP and TCP, with options
	err = raw.Read(func(fd uintptr) (done bool) {
		for range maxHeard {
			n, err := unix.Read(int(fd), headers)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return len(answers) > 0
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN): // one interface of several
			case err != nil:
				failed = err
				return true
			default:
				if a, ok := t.Reply(headers[:n], time.Now()); ok {
					answers = append(answers, a)
				}
			}
		}
		return true
	})
	return answers, errors.Join(err, failed)
}
