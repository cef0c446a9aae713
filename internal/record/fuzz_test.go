// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// FuzzRecord loads a record, asks it everything, and writes it again: what was read
// is what is written.
func FuzzRecord(f *testing.F) {
	r := &Record{
		ID: "5@77", Op: Dump, Phase: Held, Scope: Connections, NetNS: netns.ID{Dev: 4, Ino: 4026532248}, Cookie: 7,
		Backend: "nftables", Owner: "t00000001", CRIU: proc.Ref{PID: 5, Start: 77}, Tree: []proc.Ref{{PID: 1 << 30, Start: 8}},
		Stopped: true, Reuse: tcp.Reuse{7: true}, Answer: 1 << 31, Since: time.Unix(1, 2), Until: time.Unix(3, 4), ForeignLocks: []string{"CRIU-5"},
	}
	must := func(err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
	}
	must(r.Conns.UnmarshalText([]byte("192.0.2.1:443 198.51.100.7:50000 [fe80::1%eth0]:443 [fe80::2%eth0]:50000")))
	seed, err := json.Marshal(r)
	must(err)
	f.Add(seed)
	f.Add([]byte(`{"id":"manual-1","op":"manual","phase":"frozen","tree":[{"pid":-1},{"pid":0}],"conns":"","until":"9999-12-31T23:59:59Z"}`))
	f.Add([]byte(`{"version":-1,"container":{"id":"abc","annotations":{"a":"b"}}}`))
	must(MakeDir())
	id := fmt.Sprintf("%d@1", os.Getpid()) // the fuzzer's processes share the directory
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse(data)
		if err != nil || r.Version > version {
			_, _ = (&UnreadableError{ID: id, text: data}).NetNS()
			return
		}
		if r.Describe() == "" || r.DescribeHold() == "" || r.ThawTarget() == "" {
			t.Errorf("%s has no name", data)
		}
		if r.Waits() && r.Holds() {
			t.Errorf("%s waits for a restore and holds", data)
		}
		if r.Over() && r.Undoable() {
			t.Errorf("%s is over while it can be undone", data)
		}
		r.ID = id
		if err := r.Save(); err != nil {
			t.Fatalf("%s cannot be written: %v", data, err)
		}
		again, err := Load(id)
		if err != nil {
			t.Fatalf("%s cannot be read again: %v", data, err)
		}
		if a, b := encoded(t, r), encoded(t, again); !bytes.Equal(a, b) {
			t.Errorf("%s became %s", a, b)
		}
		if err := again.Remove(); err != nil {
			t.Error(err)
		}
	})
}

func encoded(t *testing.T, r *Record) []byte {
	t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
