// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// figures are the results of one act.
type figures struct {
	received  uint64        // bytes, by the client
	lost      uint64        // bytes that were sent and never received, both ways
	doubled   uint64        // a byte out of order is lost when it is passed over, and doubled when it comes
	spoilt    uint64        // bytes received with a wrong value
	fin, rst  int           // segments that reached the peer, from the dump on
	frozen    time.Duration // how long CRIU kept the tasks frozen
	firstByte time.Duration // from the thaw until both connections have carried a byte; 0 for never
	silence   time.Duration // the longest on the client; 0 if it has not ended
	conns     int           // connections of the client
	living    int           // connections that carry traffic at the end
}

// count compares what was sent with what has arrived. A restored server counts
// from the state in its dump, so that what it had sent when it was stopped has to
// be taken into account as well.
func (f *figures) count(clients, servers, stopped []stats.Snapshot) {
	f.received, f.lost, f.doubled, f.spoilt, f.conns = 0, 0, 0, 0, len(clients)
	way := func(sent uint64, to stats.Snapshot) {
		// The receiver does not notice that bytes at the very end are missing.
		missing := int64(sent) - int64(to.Received)
		f.lost += max(to.Lost, uint64(max(0, missing)))
		f.doubled += to.Doubled
		f.spoilt += to.Corrupt
	}
	sent := map[uint64]uint64{}
	for _, s := range stopped {
		sent[s.ID] = s.Sent
	}
	for _, c := range clients {
		f.received += c.Received
		for _, s := range servers {
			if s.ID == c.ID {
				way(c.Sent, s)
				way(max(s.Sent, sent[s.ID]), c)
			}
		}
	}
}

// rows are the figures by name, and what each is promised to be with
// criu-netfreeze, "" if nothing is promised.
var rows = []struct {
	name     string
	of       func(f figures) string
	promised string
}{
	{"bytes received by the client", func(f figures) string { return fmt.Sprint(f.received) }, ""},
	{"bytes lost, both ways", func(f figures) string { return fmt.Sprint(f.lost) }, "0"},
	{"bytes doubled or out of order", func(f figures) string { return fmt.Sprint(f.doubled) }, "0"},
	{"bytes spoilt", func(f figures) string { return fmt.Sprint(f.spoilt) }, "0"},
	{"FIN seen by the peer", func(f figures) string { return fmt.Sprint(f.fin) }, "0"},
	{"RST seen by the peer", func(f figures) string { return fmt.Sprint(f.rst) }, "0"},
	{"connections that go on", func(f figures) string { return fmt.Sprintf("%d of %d", f.living, f.conns) }, "2 of 2"},
	{"tasks frozen by CRIU's dump", func(f figures) string { return ms(f.frozen, "-") }, ""},
	{"from thaw or restore to the first byte", func(f figures) string { return ms(f.firstByte, "never") }, ""},
	{"the client's longest silence", func(f figures) string { return ms(f.silence, "for good") }, ""},
}

// ms formats a time in milliseconds; for 0 it returns none.
func ms(d time.Duration, none string) string {
	if d == 0 {
		return none
	}
	return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
}

// table returns the figures of all acts side by side, each below its head.
func table(heads []string, all []figures) string {
	text := fmt.Sprintf("%-38s", "")
	for _, head := range heads {
		text += fmt.Sprintf("%12s", head)
	}
	for _, row := range rows {
		text += fmt.Sprintf("\n%-38s", row.name)
		for _, f := range all {
			text += fmt.Sprintf("%12s", row.of(f))
		}
	}
	return text + "\n"
}

// verdict returns an error that says what is not as promised.
func (f figures) verdict(withNetfreeze bool) error {
	if !withNetfreeze {
		if f.rst == 0 || f.living > 0 {
			return fmt.Errorf("%d RST seen and %d connections that go on: without a reset, the act shows nothing to compare with", f.rst, f.living)
		}
		return nil
	}
	var wrong []error
	for _, row := range rows {
		if row.promised != "" && row.of(f) != row.promised {
			wrong = append(wrong, fmt.Errorf("%s: %s, promised are %s", row.name, row.of(f), row.promised))
		}
	}
	return errors.Join(wrong...)
}
