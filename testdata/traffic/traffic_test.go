// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

func TestParseFlow(t *testing.T) {
	good := map[string]struct {
		flow flow
		n    int
	}{
		"push":                        {flow{kind: push, size: 128, interval: time.Millisecond}, 1},
		"reqrep=4":                    {flow{kind: reqrep, size: 64, interval: time.Millisecond}, 4},
		"bulk=2,size=64,interval=1s":  {flow{kind: bulk, size: 64, interval: time.Second}, 2},
		"bulk,slow":                   {flow{kind: bulk, slow: true, size: 32 << 10, interval: 20 * time.Millisecond}, 1},
		"push,nap":                    {flow{kind: push, nap: true, size: 128, interval: time.Millisecond}, 1},
		"pull,half":                   {flow{kind: pull, half: true, size: 128, interval: time.Millisecond}, 1},
		"udp=3,interval=250us,size=8": {flow{kind: udp, size: 8, interval: 250 * time.Microsecond}, 3},
	}
	for spec, want := range good {
		if f, n, err := parseFlow(spec); f != want.flow || n != want.n || err != nil {
			t.Errorf("parseFlow(%q) = %+v, %d, %v", spec, f, n, err)
		}
	}
	for _, spec := range []string{"", "pish", "push=0", "push=x", "bulk,half", "push,size=7", "push,interval=0s", "push,colour=red"} {
		if f, _, err := parseFlow(spec); err == nil {
			t.Errorf("parseFlow(%q) = %+v, want an error", spec, f)
		}
	}
}

func FuzzParseGreeting(f *testing.F) {
	for k := range kindNames {
		f.Add(flow{id: 7, kind: kind(k), size: 64, interval: time.Second}.greeting())
	}
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseGreeting(b)
		if err != nil {
			return
		}
		again, err := parseGreeting(got.greeting())
		if err != nil || again != got {
			t.Errorf("%+v came back as %+v, %v", got, again, err)
		}
	})
}

func TestChecker(t *testing.T) {
	const id = 5
	words := func(seqs ...uint64) (b []byte) {
		for _, s := range seqs {
			b = binary.BigEndian.AppendUint64(b, tag(id, server)|s)
		}
		return b
	}
	foreign := make([]byte, wordLen)
	fill(foreign, tag(id, client), 2)
	tests := map[string]struct {
		in                     []byte
		lost, doubled, corrupt uint64
	}{
		"in order":        {words(0, 1, 2, 3), 0, 0, 0},
		"a gap":           {words(0, 1, 5, 6), 24, 0, 0},
		"repeated":        {words(0, 1, 2, 1, 2, 3), 0, 16, 0},
		"swapped":         {words(0, 2, 1, 3), 8, 8, 0},
		"other direction": {slices.Concat(words(0, 1), foreign, words(3)), 0, 0, 8},
		"a byte lost":     {words(0, 1, 2, 3)[1:], 0, 0, 24},
	}
	for name, test := range tests {
		// However it is cut, the verdict is the same.
		for _, cut := range []int{1, 3, 8, 13, 1000} {
			file, err := stats.Create(filepath.Join(t.TempDir(), "stats"))
			if err != nil {
				t.Fatal(err)
			}
			slot, err := file.Add()
			if err != nil {
				t.Fatal(err)
			}
			var said []string
			c := checker{tag: tag(id, server), stats: slot, complain: func(err error) { said = append(said, err.Error()) }}
			for part := range slices.Chunk(test.in, cut) {
				c.feed(part)
			}
			s := slot.Snapshot()
			if s.Lost != test.lost || s.Doubled != test.doubled || s.Corrupt != test.corrupt {
				t.Errorf("%s, cut to %d: lost %d, doubled %d, corrupt %d; want %d, %d, %d:\n%s", name, cut,
					s.Lost, s.Doubled, s.Corrupt, test.lost, test.doubled, test.corrupt, strings.Join(said, "\n"))
			}
			if err := file.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
