// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

func TestCount(t *testing.T) {
	client := stats.Snapshot{LocalPort: 1, Sent: 500, Received: 1000}
	server := stats.Snapshot{RemotePort: 1, Sent: 1000, Received: 500}
	for name, test := range map[string]struct {
		change                func(client, server, stopped *stats.Snapshot)
		lost, doubled, spoilt uint64
	}{
		"all there":         {func(_, _, _ *stats.Snapshot) {}, 0, 0, 0},
		"missing at client": {func(_, s, _ *stats.Snapshot) { s.Sent += 8 }, 8, 0, 0},
		"missing at server": {func(c, _, _ *stats.Snapshot) { c.Sent += 8 }, 8, 0, 0},
		"counted ahead":     {func(c, _, _ *stats.Snapshot) { c.Received += 8 }, 0, 0, 0},
		"a gap":             {func(c, s, _ *stats.Snapshot) { c.Lost, s.Sent = 8, s.Sent+8 }, 8, 0, 0},
		"out of order":      {func(c, _, _ *stats.Snapshot) { c.Lost, c.Doubled = 8, 8 }, 8, 8, 0},
		"spoilt":            {func(_, s, _ *stats.Snapshot) { s.Corrupt = 8 }, 0, 0, 8},
		"put back":          {func(_, s, stopped *stats.Snapshot) { s.Sent, stopped.Sent = 900, 1100 }, 100, 0, 0},
	} {
		c, s, stopped := client, server, server
		test.change(&c, &s, &stopped)
		f := figures{lost: 1, conns: 1} // of an earlier count
		f.count([]stats.Snapshot{c}, []stats.Snapshot{s}, []stats.Snapshot{stopped})
		if f.lost != test.lost || f.doubled != test.doubled || f.spoilt != test.spoilt || f.conns != 1 {
			t.Errorf("%s: %d lost, %d doubled, %d spoilt of %d connections; want %d, %d, %d of 1", name,
				f.lost, f.doubled, f.spoilt, f.conns, test.lost, test.doubled, test.spoilt)
		}
	}
}

func TestVerdict(t *testing.T) {
	for name, test := range map[string]struct {
		withNetfreeze bool
		f             figures
		want          string // in the error, "" for none
	}{
		"reset":            {false, figures{rst: 2, conns: 2}, ""},
		"no reset":         {false, figures{fin: 2, conns: 2}, "0 RST"},
		"one goes on":      {false, figures{rst: 1, conns: 2, living: 1}, "1 connections"},
		"as promised":      {true, figures{received: 1, conns: 2, living: 2}, ""},
		"lost":             {true, figures{lost: 8, conns: 2, living: 2}, "bytes lost, both ways: 8"},
		"doubled":          {true, figures{doubled: 8, conns: 2, living: 2}, "doubled or out of order: 8"},
		"spoilt":           {true, figures{spoilt: 8, conns: 2, living: 2}, "bytes spoilt: 8"},
		"FIN":              {true, figures{fin: 1, conns: 2, living: 2}, "FIN seen by the peer: 1"},
		"RST":              {true, figures{rst: 1, conns: 2, living: 2}, "RST seen by the peer: 1"},
		"one has died":     {true, figures{conns: 2, living: 1}, "connections that go on: 1 of 2"},
		"no connection":    {true, figures{}, "connections that go on: 0 of 0"},
		"nothing is right": {true, figures{lost: 8, rst: 1}, "RST seen by the peer: 1"},
	} {
		err := test.f.verdict(test.withNetfreeze)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: the verdict is %v, want %q", name, err, test.want)
		}
	}
}

func TestTable(t *testing.T) {
	got := table([]string{"Act 1", "Act 2"}, []figures{
		{received: 1234567, lost: 89, fin: 1, rst: 2, frozen: 104 * time.Millisecond, conns: 2},
		{received: 2345678, frozen: 44200 * time.Microsecond, firstByte: 900 * time.Microsecond, silence: 3 * time.Second, conns: 2, living: 2},
	})
	const want = `
                                             Act 1       Act 2
bytes received by the client               1234567     2345678
bytes lost, both ways                           89           0
bytes doubled or out of order                    0           0
bytes spoilt                                     0           0
FIN seen by the peer                             1           0
RST seen by the peer                             2           0
connections that go on                      0 of 2      2 of 2
tasks frozen by CRIU's dump               104.0 ms     44.2 ms
from thaw or restore to the first byte       never      0.9 ms
the client's longest silence              for good   3000.0 ms
`
	if got != want[1:] {
		t.Errorf("the table is\n%s, want\n%s", got, want[1:])
	}
}
