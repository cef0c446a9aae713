// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/quiet"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// quietMargin is how much longer than it takes to make them quiet peers are kept so:
// until CRIU has seized the tasks, and the network lock takes over. The kernel opens
// their windows by itself then.
const quietMargin = synMargin

// quieten makes the peers stop sending, so that the freeze, which comes next, drops
// nothing. Where that does not work the dump goes on without.
// socks are the namespace's sockets.
func (d *Dump) quieten(socks []tcp.Socket) {
	if !d.record().Quiet {
		return
	}
	conns, err := d.receiving(socks)
	if err == nil && len(conns) > 0 {
		d.quiet, err = quiet.Make(d.freeze.NetNS(), conns, d.set.QuietTime, func(conns []tcp.Tuple) error {
			return d.freeze.ShutWindows(conns, d.set.QuietTime+quietMargin)
		})
	}
	switch {
	case errors.Is(err, rules.ErrWindows):
		d.record().Quiet = false // nobody need be told
		d.env.Log.Infof("the peers are not made quiet before the freeze, since the back end is %s: %v", d.record().Backend, err)
	case err != nil:
		d.env.Log.Warnf("the peers are not made quiet before the freeze, which drops what they send: %v", code.Any(err))
	case d.quiet != nil:
		d.env.Log.Info(describeQuiet(d.quiet, d.set.QuietTime))
	}
}

// describeQuiet says how it went, and why some peers are not quiet.
func describeQuiet(p *quiet.Peers, limit time.Duration) string {
	text := fmt.Sprintf("the peers of %d connections are quiet after %v", p.Quiet(), p.Took.Round(time.Microsecond))
	if p.Slow > 0 {
		text += fmt.Sprintf("; %d are left alone, whose round trip takes too long (quiet-time is %v)", p.Slow, limit)
	}
	if p.Translated > 0 {
		text += fmt.Sprintf("; %d are left alone, whose addresses are translated in the namespace", p.Translated)
	}
	if p.Loud > 0 {
		text += fmt.Sprintf("; %d are not, and have their windows back", p.Loud)
	}
	return text
}

// receiving returns those of the connections that the freeze will cover and whose peers
// may send.
func (d *Dump) receiving(socks []tcp.Socket) ([]tcp.Tuple, error) {
	socks = tcp.Receiving(socks)
	if d.record().Scope == record.NetNS || len(socks) == 0 {
		return tcp.Outside(tcp.Connections(socks)), nil
	}
	tree, err := proc.OpenTree(d.record().Tree[0])
	if err != nil {
		return nil, fmt.Errorf("find the tasks: %w", err)
	}
	defer tree.Close()
	inodes, err := tcp.Inodes(tree)
	if err != nil {
		return nil, fmt.Errorf("find the tasks' sockets: %w", err)
	}
	return tcp.Outside(tcp.Owned(socks, inodes)), nil
}

// openWindows has the connections tell their peers how large their windows are, once the
// rules no longer shut them and the tasks keep their network. It does so beside CRIU.
func (d *Dump) openWindows() {
	if !d.record().Quiet || d.opening {
		return
	}
	d.opening = true
	d.background.Go(func() {
		sent, err := d.open(context.Background())
		if err != nil {
			d.env.Log.Debugf("open the peers' windows: %v", err)
		}
		d.env.Report.Sent("windows", sent)
	})
}

// open opens the windows of those whom this process has made quiet. Where another one
// did, every connection is asked.
func (d *Dump) open(ctx context.Context) (sent int, err error) {
	if d.quiet != nil {
		return d.quiet.Open(ctx)
	}
	if !d.reopened {
		return 0, nil
	}
	socks, err := d.freeze.Sockets()
	if err != nil {
		return 0, err
	}
	conns, err := d.receiving(socks)
	if err != nil {
		return 0, err
	}
	return quiet.End(ctx, d.freeze.NetNS(), conns)
}
