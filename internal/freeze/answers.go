// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// The peers of a hold are answered by the settler that watches it (package answer), and
// each answer closes the peer's window. None may leave once the window has been opened
// again, by a thaw or by a restore. So answers leave only under the namespace's lock,
// under which alone a freeze ends, and while the record says so. Whoever ends the freeze
// takes the word back first: see silence.

// Answering is what is to be answered while a freeze lasts.
type Answering struct {
	Streams []tcp.Stream // where the connections stood, but for the bytes in Unacked
	Quiet   tcp.Set      // those whose peers had nothing under way when the freeze came
	Frozen  time.Time    // since when their peers get no answer
	Ended   bool         // also where the dump has ended the tasks
	// Nudge is how many packets each connection gets at most when the freeze of tasks that
	// ran on is thawed; 0 is the one that opens its peer's window.
	Nudge int
}

// AllowAnswers has Seal let out answers to the peers of this freeze, by a mark that the
// record keeps.
func (f *Freeze) AllowAnswers() error {
	return f.locked(func() error {
		mark, err := f.drawMark()
		if err != nil {
			return err
		}
		f.Record.Answer = mark
		return f.save()
	})
}

// drawMark returns a mark for answers, at random. A whole namespace has one for all.
func (f *Freeze) drawMark() (uint32, error) {
	usable := ^uint32(0)
	if f.conns == nil {
		records, err := record.Of(f.ns)
		if err != nil {
			return 0, err
		}
		if mark := answersOf(records); mark != 0 {
			return mark, nil
		}
	} else {
		usable &^= hostMarks
	}
	for {
		b := make([]byte, 4)
		if _, err := rand.Read(b); err != nil {
			return 0, err
		}
		if mark := binary.NativeEndian.Uint32(b) & usable; mark != 0 && mark != rules.Mark {
			return mark, nil
		}
	}
}

// hostMarks are bits by which rules that are common in the host's own namespace know
// packets to be dropped, translated or sent elsewhere: kube-proxy's 0x8000 and 0x4000, and
// Cilium's 0x0f00. Container namespaces have no such rules.
const hostMarks = 0xcf00

// answersOf returns the mark for answers of the records of a whole namespace, 0 if there
// is none.
func answersOf(records []*record.Record) uint32 {
	for _, r := range records {
		if r.Scope == record.NetNS && r.Answer != 0 {
			return r.Answer
		}
	}
	return 0
}

// keepClosed has the nudge keep the windows of some connections closed, see answer's InFlight.
func keepClosed(streams []tcp.Stream, some []tcp.Tuple) {
	set := tcp.SetOf(some)
	for i := range streams {
		if set.Has(streams[i].Tuple) {
			streams[i].Window = 0
		}
	}
}

// KeepClosed has the nudge of a restore keep the windows closed that are so for a former
// dump in the same namespace, see answer's InFlight.
func KeepClosed(ns *netns.Namespace, streams []tcp.Stream) error {
	records, err := record.Of(ns)
	for _, r := range records {
		keepClosed(streams, r.InFlight)
	}
	return err
}

// silence ends the answers for the connections of the records, before the window that
// they close is opened again. The caller has the namespace's lock.
func silence(records ...*record.Record) error {
	var errs []error
	for _, r := range records {
		if r.Answer == 0 {
			continue
		}
		r.Answer = 0
		now, err := record.Load(r.ID)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			now.Answer = 0
			err = now.Save()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
