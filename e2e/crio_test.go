// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// crioEngine is a runtime that is used as CRI-O 1.37 uses it (Debian has no CRI-O): the
// container is paused around a checkpoint, which asks for no TCP option and leaves it
// running; the images are archived and deleted the moment CRIU has ended.
type crioEngine struct {
	runtimeEngine
	archiveFails bool // and with it the checkpoint
}

func (e *crioEngine) String() string { return string(e.runtimeEngine) }

func (e *crioEngine) dump(k *task, _ bool, _ ...string) error {
	if err := e.run("pause", k.id); err != nil {
		return err
	}
	args := []string{"checkpoint", "--image-path", k.images(), "--work-path", k.images(), "--leave-running", "--file-locks"}
	err := withLog(e.run(append(e.cgroups(args), k.id)...), k.images()+"/dump.log")
	if err == nil {
		err = e.archive(k)
	}
	if err2 := e.run("resume", k.id); err2 != nil && !gone(err2) {
		err = errors.Join(err, err2)
	}
	return err
}

// gone reports whether a runtime says that there is no container to resume: the policy
// has ended it.
func gone(err error) bool {
	return strings.Contains(err.Error(), "not running") || strings.Contains(err.Error(), "not paused") || strings.Contains(err.Error(), "stopped") || strings.Contains(err.Error(), "does not exist")
}

// archive moves the images to where CRI-O's archive would be.
func (e *crioEngine) archive(k *task) error {
	if e.archiveFails {
		if err := os.RemoveAll(k.images()); err != nil {
			return err
		}
		return errors.Join(os.Mkdir(k.images(), 0o755), errors.New("no space left for the archive"))
	}
	if err := os.RemoveAll(k.images() + ".archive"); err != nil {
		return err
	}
	if _, err := runIn("", "", "cp", "-a", k.images(), k.images()+".archive"); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(k.images()), os.Mkdir(k.images(), 0o755))
}

func (e *crioEngine) restore(k *task, options ...string) error {
	if _, err := runIn("", "", "cp", "-a", k.images()+".archive/.", k.images()); err != nil {
		return err
	}
	return e.runtimeEngine.restore(k, options...)
}

// TestCRIO has a container checkpointed as CRI-O does it. A hold survives that the
// container is paused and resumed; a checkpoint whose archive fails can be taken back
// as long as the hold lasts.
func TestCRIO(t *testing.T) {
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			e := &crioEngine{runtimeEngine: runtimeEngine(name)}
			t.Run("kill", func(t *testing.T) {
				withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("runc"), runtimeEngine("crun"))
				p := newPair(t, e, true, everyMillisecond)
				p.dumpAndMove(freeze(t))
				time.Sleep(live)
				p.restoreThere()
			})
			t.Run("hold", func(t *testing.T) {
				withNetfreeze(t, settings{policy: "hold"}, runtimeEngine("runc"), runtimeEngine("crun"))
				p := newPair(t, e, true, everyMillisecond)
				p.holdAndThaw()
				p.awaitBoth(time.Now())
				p.holdAndKill()
				e.remove(p.dumped)
				p.restoreThere()
			})
			t.Run("no archive", func(t *testing.T) {
				withNetfreeze(t, settings{policy: "hold", more: `hold-then-kill = "60s"`}, runtimeEngine("runc"), runtimeEngine("crun"))
				fails := &crioEngine{runtimeEngine: runtimeEngine(name), archiveFails: true}
				p := newPair(t, fails, true, everyMillisecond)
				if err := fails.dump(p.dumped, true); err == nil {
					t.Fatal("the checkpoint did not fail")
				}
				p.dumped.awaitStop()
				mustRun(t, "", "", netfreeze, "thaw", fmt.Sprint(p.dumped.pid))
				p.awaitBoth(time.Now())
				p.checkUnharmed(time.Now())
			})
		})
	}
}
