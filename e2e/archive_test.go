// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// archiver is an engine whose caller packs the images and deletes them the moment CRIU
// has ended, as CRI-O does, and unpacks them for the restore.
type archiver struct{ plainCRIU }

func (e archiver) dump(k *task, leaveRunning bool, options ...string) error {
	if err := e.plainCRIU.dump(k, leaveRunning, options...); err != nil {
		return err
	}
	if _, err := runIn("", "", "cp", "-a", k.images(), k.images()+".archive"); err != nil {
		return err
	}
	return os.RemoveAll(k.images())
}

func (e archiver) restore(k *task, options ...string) error {
	if err := os.Rename(k.images()+".archive", k.images()); err != nil {
		return err
	}
	return e.plainCRIU.restore(k, options...)
}

// TestArchiver moves tasks whose images vanish at once. What the settler needs of them
// it has read before: without the last acknowledgement some peers would wait for their
// own timers, which have backed off.
func TestArchiver(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, plainCRIU{})
	for i := range 6 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, archiver{}, true, []string{"pull=3,interval=2ms", "push,interval=2ms", "reqrep,interval=2ms", "bulk,interval=2ms"})
			p.dumpAndMove(freeze(t))
			time.Sleep(2 * time.Second) // the peers back off
			if err := p.dumped.engine.restore(p.dumped); err != nil {
				t.Fatalf("restore: %v", err)
			}
			p.awaitTraffic(2*prompt, time.Now())
			p.checkUnharmed(time.Now())
		})
	}
}
