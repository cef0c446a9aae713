// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// How the first bytes after a thaw are looked for: often at first, for a while, and
// never for more than a small part of the time.
const (
	firstLook   = time.Millisecond
	lookTime    = 2 * time.Second        // in all,
	lookOn      = 200 * time.Millisecond // and after each has carried something, one way
	lookBackOff = 1.3
	lastLook    = 200 * time.Millisecond // between two looks, at most
	lookShare   = 4                      // at most a quarter of the time is spent on it
)

// watchTraffic finds out, for the report, when each connection of the restore carries
// bytes. It begins right before the thaw, and runs beside CRIU.
func (r *Restore) watchTraffic() {
	conns := journal.Limit(r.record().Conns)
	if r.env.Report == nil || len(conns) == 0 || r.watching {
		return
	}
	ns, err := r.freeze.NetNS().Clone()
	if err != nil {
		r.env.Log.Debug(err)
		return
	}
	r.watching = true
	r.background.Go(func() {
		defer ns.Close()
		w := trafficWatch{
			conns: conns, sleep: time.Sleep,
			list: func() (map[tcp.Tuple]tcp.Progress, error) {
				return netns.In(ns, func() (map[tcp.Tuple]tcp.Progress, error) { return tcp.ListProgress(conns) })
			},
		}
		flows, err := w.run(time.Now())
		if err != nil {
			r.env.Log.Debug(err)
		}
		r.env.Report.Add(journal.Event{Kind: journal.Carried, Carried: flows})
	})
}

// trafficWatch has what watching needs, so that tests can replace it.
type trafficWatch struct {
	conns []tcp.Tuple
	list  func() (map[tcp.Tuple]tcp.Progress, error)
	sleep func(time.Duration)
}

// run looks until every connection has carried bytes both ways, or the time for that is
// over: some carry them one way only. Times count from thaw.
func (w trafficWatch) run(thaw time.Time) ([]journal.Flow, error) {
	flows := make([]journal.Flow, len(w.conns))
	for i, c := range w.conns {
		flows[i] = journal.Flow{Local: c.Local, Remote: c.Remote}
	}
	before, err := w.list()
	if err != nil {
		return flows, err
	}
	end := thaw.Add(lookTime)
	for wait := firstLook; time.Now().Before(end); wait = time.Duration(float64(wait) * lookBackOff) {
		w.sleep(wait)
		began := time.Now()
		now, err := w.list()
		if err != nil {
			return flows, err
		}
		some, all := note(flows, before, now, time.Since(thaw).Nanoseconds())
		if all {
			break
		}
		if some && time.Until(end) > lookOn {
			end = time.Now().Add(lookOn)
		}
		wait = min(max(wait, lookShare*time.Since(began)), lastLook)
	}
	return flows, nil
}

// note notes what has come since, at a time after the thaw in ns. It reports whether each
// connection has carried some bytes, and whether all have both ways.
func note(flows []journal.Flow, before, now map[tcp.Tuple]tcp.Progress, at int64) (some, all bool) {
	some, all = true, true
	for i := range flows {
		f := &flows[i]
		t := tcp.Tuple{Local: f.Local, Remote: f.Remote}
		if f.InNS == nil && now[t].Received > before[t].Received {
			f.InNS = &at
		}
		if f.OutNS == nil && now[t].Acked > before[t].Acked {
			f.OutNS = &at
		}
		some = some && (f.InNS != nil || f.OutNS != nil)
		all = all && f.InNS != nil && f.OutNS != nil
	}
	return some, all
}
