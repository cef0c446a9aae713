// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Facts is what a report says of a transaction. What is not known yet is zero.
type Facts struct {
	Header         journal.Header
	State          string    // how far it has got
	Frozen, Thawed time.Time // packets were dropped from the one to the other
	Tasks          int       // of a dump that was committed
	Conns          []tcp.Tuple
	Outcome        string
}

// facts is what a dump and a restore can say alike.
func (c *common) facts() Facts {
	r := c.record()
	f := Facts{
		Header: journal.Header{
			Op: string(r.Op), CRIU: r.CRIU.PID, Container: r.Container, Scope: string(r.Scope),
			Policy: r.Policy, Why: r.Why, Backend: string(r.Backend),
		},
		Conns: r.Conns,
	}
	if len(r.Tree) > 0 {
		f.Header.Root = r.Tree[0].PID
	}
	if c.freeze.NetNS() != nil {
		f.Header.NetNS = r.NetNS.String()
	}
	f.Frozen, f.Thawed = c.freeze.Times()
	return f
}

// Facts implements Transaction.
func (d *Dump) Facts() Facts {
	f := d.facts()
	f.State = d.now.String()
	if d.now >= dumpCommitted {
		f.Tasks = len(d.record().Tree)
	}
	if d.now == dumpSettled {
		f.Outcome = d.result()
	}
	return f
}

// result is what has become of a dump that is settled.
func (d *Dump) result() string {
	switch {
	case d.decided == failed:
		return journal.Failed
	case d.record().Phase == record.Held:
		return journal.Held
	case d.record().Phase == record.Isolated:
		return journal.Isolated
	case d.set.Policy == config.Run && d.decided == succeeded:
		return journal.WentOn
	}
	return journal.Ended
}

// Facts implements Transaction.
func (r *Restore) Facts() Facts {
	f := r.facts()
	f.State = r.now.String()
	switch {
	case r.now == restoreFinished:
		f.Outcome = journal.Restored
	case r.now == restoreSettled && r.record().Phase == record.Frozen:
		f.Outcome = journal.Kept
	case r.now == restoreSettled:
		f.Outcome = journal.Failed
	}
	return f
}
