// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// ErrWindows means that a back end cannot shut windows: iptables changes no part of a
// TCP header but its options.
var ErrWindows = errors.New("only nftables can write into TCP segments")

// Windows shuts the windows that connections offer to their peers, which then send
// nothing more, though everything still passes (RFC 9293, section 3.8.6; the idea is
// that of Freeze-TCP). It is done before a freeze, so that the freeze drops nothing.
type Windows interface {
	// ShutWindows makes all segments that leave on conns, and on no others, offer a
	// window of 0, until it is called again, the rules are lifted or thawed, or ttl has
	// passed by the kernel's clock. With no conns it opens all windows again. Rules must
	// have been put in place before by the same object. It returns [ErrWindows] if the
	// back end cannot do that.
	ShutWindows(conns []tcp.Tuple, ttl time.Duration) error
}

// The sets of the connections whose windows are shut. The IDs differ from those of the
// other sets of either table.
var (
	shut4 = connSet("shut4", 4, ip4)
	shut6 = connSet("shut6", 5, ip6)
)

// nftWindows implements Windows in a table that exists.
type nftWindows struct {
	conn *nftConn
	sets bool // the table has the sets, as far as is known: it may have been replaced since
}

// shut makes the sets of table t contain conns, and adds the chain that uses them if it
// is not there yet: most tables never need it.
func (w *nftWindows) shut(t *nftables.Table, conns []tcp.Tuple, ttl time.Duration) error {
	what := fmt.Sprintf("shut the windows of %d connections", len(conns))
	if len(conns) == 0 {
		what = "open the windows again"
	}
	if !w.sets && len(conns) == 0 {
		return nil
	}
	elems4, elems6 := elements(conns, ttl)
	c := w.conn
	if w.sets {
		w.flush(t)
	} else if err := w.add(t); err != nil {
		return err
	}
	if err := errors.Join(c.addElements(t, shut4, elems4), c.addElements(t, shut6, elems6), c.makeRoom(len(conns))); err != nil {
		return fmt.Errorf("%s in %s: %w", what, c.ns, err)
	}
	err := c.commit(what)
	if err == nil {
		w.sets = true
	} else if errors.Is(err, unix.ENOENT) {
		w.sets = false // somebody has removed them
	}
	return err
}

// flush adds to the batch what opens all windows again.
func (w *nftWindows) flush(t *nftables.Table) {
	if w.sets {
		w.conn.FlushSet(setOf(t, shut4))
		w.conn.FlushSet(setOf(t, shut6))
	}
}

// add adds the sets and their chain to the batch. The chain comes after the one that
// drops, and before addresses are translated: there a segment has its socket's.
func (w *nftWindows) add(t *nftables.Table) error {
	c := w.conn
	set4, err4 := c.connSet(t, shut4, nil)
	set6, err6 := c.connSet(t, shut6, nil)
	if err := errors.Join(err4, err6); err != nil {
		return err
	}
	out := c.baseChain(t, "windows", nftables.ChainHookOutput, nftables.ChainPriorityMangle)
	c.rule(out, "the peer is to send nothing more", connIn(ip4, set4, leaving), noWindow())
	c.rule(out, "the peer is to send nothing more", connIn(ip6, set6, leaving), noWindow())
	return nil
}

// noWindow writes 0 into the window of a TCP segment and corrects its checksum.
func noWindow() []expr.Any {
	const offset, length, checksum = 14, 2, 16 // in the header (RFC 9293, section 3.1)
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: make([]byte, length)},
		&expr.Payload{
			OperationType: expr.PayloadWrite, Base: expr.PayloadBaseTransportHeader,
			Offset: offset, Len: length, SourceRegister: 1,
			CsumType: expr.CsumTypeInet, CsumOffset: checksum,
		},
	}
}

func (f *nftFreezer) ShutWindows(conns []tcp.Tuple, ttl time.Duration) error {
	return f.windows.shut(wholeTable, conns, ttl)
}

func (f *nftConns) ShutWindows(conns []tcp.Tuple, ttl time.Duration) error {
	return f.windows.shut(&nftables.Table{Name: f.name, Family: nftables.TableFamilyINet}, conns, ttl)
}

func (f *iptFreezer) ShutWindows([]tcp.Tuple, time.Duration) error { return ErrWindows }

func (f *iptConns) ShutWindows([]tcp.Tuple, time.Duration) error { return ErrWindows }
