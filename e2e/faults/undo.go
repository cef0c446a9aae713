// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// undo brings a pod from whatever its dumps have left back to running trees: by
// netfreeze thaw, or by a restore.
func (r *run) undo(p *pod) {
	thawNetNS := false
	for _, t := range p.trees {
		if t.state != runs {
			r.excuseLate(t, time.Now())
		}
		switch t.state {
		case runs:
		case stopped, stoppedOpen:
			if len(p.trees) == 1 && t.state == stopped && t.told != failed && r.excused == "" && r.random.IntN(5) < 2 {
				if r.end(t) {
					r.restore(t)
					continue
				}
			}
			thawNetNS = true
		case gone, goneOpen:
			if r.thawed {
				r.excuse("a command thawed what had ended, and nobody was there to answer the peers")
			}
			if r.excused == "" || t.told == succeeded {
				r.restore(t)
			}
		default:
			thawNetNS = true
		}
	}
	switch {
	case !thawNetNS && r.harms() && (r.leftovers() != nil || r.has(clearsDir)):
		// The kernel has ended it; what is left has to be tidied away.
		r.soothe()
		if _, err := r.command("thaw", p.app); err != nil {
			r.logf("thaw of what is left: %v", err)
		}
		return
	case !thawNetNS:
		return
	}
	r.thaw(p)
}

// excuseLate does not judge connections whose freeze was over, or about to be, before
// somebody could take it over.
func (r *run) excuseLate(t *tree, taken time.Time) {
	if frozen, armed := t.dumped.at("after:network-lock"); armed && taken.Sub(frozen) > r.ttl()-2*time.Second {
		r.excuse("the time to live was over before the tree came back")
	}
}

// thaw has netfreeze thaw undo what is left, and checks that it does what it says.
func (r *run) thaw(p *pod) {
	r.soothe()
	target := p.app
	if len(p.trees) == 1 && r.random.IntN(2) == 0 {
		target = fmt.Sprint(p.trees[0].pid)
	}
	if r.random.IntN(2) == 0 {
		_, _ = r.command("status")
	}
	_, err := r.command("thaw", target)
	if err != nil {
		if r.has(clearsDir | timeSpace) {
			r.refused = true
			return
		}
		r.breaks("netfreeze thaw undoes a hold at any time", "%v", err)
		// The other way to name it may do, so that the rest can be judged.
		if _, err := r.command("thaw", p.app); err != nil {
			return
		}
	}
	for _, t := range p.trees {
		if !t.await(r.limit(), runs) {
			r.breaks("netfreeze thaw does what it says", "after thaw %s %s is %s", target, t.id, t.state)
		}
	}
}

// end has netfreeze kill end a tree that is held.
func (r *run) end(t *tree) bool {
	r.soothe()
	if _, err := r.command("kill", fmt.Sprint(t.pid)); err != nil {
		if !r.has(clearsDir | timeSpace) {
			r.breaks("netfreeze kill ends a held tree", "%v", err)
		}
		return false
	}
	if !t.await(r.limit(), gone) {
		r.breaks("netfreeze kill ends a held tree", "%s is %s", t.id, t.state)
		return false
	}
	return true
}

// restore restores a tree that is gone into the namespace that it was dumped in. A
// restore that a fault made fail is tried again without faults.
func (r *run) restore(t *tree) {
	if r.told(t) && r.harms() && !r.first.restores() {
		r.soothe()
	}
	for try := range 2 {
		if try > 0 {
			r.soothe()
		}
		r.clear(t)
		_ = os.Remove(filepath.Join(t.dir, "pid"))
		a := r.call(t, "restore")
		r.asides.Wait()
		if t.engine == runc {
			// The runtime may go on after its caller was killed.
			if err := wait(r.limit(), t.readPid); err != nil {
				r.logf("%v", err)
			}
		}
		if taken, frozen := a.at("after:pre-restore"); frozen {
			r.excuseLate(t, taken) // on a machine that is slow enough
		}
		unlocked, opened := a.at("before:network-unlock")
		if from, armed := a.at("after:pre-restore"); opened && a.exit == 0 {
			r.silent(t.pod, from, armed, unlocked)
		}
		if t.await(r.limit(), runs) {
			return
		}
		r.logf("%s: %s after a restore", t.id, t.state)
		if a.exit == 0 && r.harms() && r.first.restores() {
			r.thaw(t.pod)
			return
		}
		if a.exit == 0 {
			r.breaks("a restore brings the tree back", "%s is %s", t.id, t.state)
			return
		}
		if _, begun := a.at("before:pre-restore"); !begun && r.first.restores() && try > 0 {
			// What the first one has left in the tasks' place is not ours.
			r.excuse("CRIU, or its caller, does not begin another restore")
			_, _ = r.command("thaw", t.pod.app)
			return
		}
		if !r.first.restores() || try > 0 {
			log, _ := os.ReadFile(a.logFile)
			r.breaks("what was dumped can be restored", "%s: %s", t.id, excerpt(string(log)))
			return
		}
		if opened {
			// The sockets are there, and so is the network. Whoever ends the
			// tasks now does so with FIN or RST.
			r.excuse("the restore failed after the thaw")
		}
	}
}

// told reports whether there is a dump to restore from.
func (r *run) told(t *tree) bool { return t.dumped != nil }

// clear removes what is left of a tree, so that it can be restored.
func (r *run) clear(t *tree) {
	if t.engine == runc {
		if err := t.runc("delete", "--force", t.id); err != nil && !strings.Contains(err.Error(), "does not exist") {
			r.logf("%v", err)
		}
		// A runc that was killed early leaves a directory without a state in it.
		_ = os.RemoveAll(filepath.Join("/run/runc", t.id))
	}
	if !zombie(t.pid) {
		_ = unix.Kill(t.pid, unix.SIGKILL)
	}
	_ = wait(patience, func() error {
		if s, _ := procState(t.pid); s != 0 {
			return errors.New("it is still there")
		}
		return nil
	})
}

// excerpt returns the lines of CRIU's log that say what went wrong.
func excerpt(log string) string {
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "Error") || strings.Contains(line, "netfreeze: error") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines[max(0, len(lines)-4):], " | ")
}

// leftovers returns an error if a process or a file of ours is left that belongs to a
// dump or a restore.
func (r *run) leftovers() error {
	for _, p := range processes() {
		if p.ours() {
			return fmt.Errorf("process %d runs: %s", p.pid, strings.Join(p.args, " "))
		}
	}
	files, err := filepath.Glob(filepath.Join(stateDir, "*"))
	if err != nil {
		return err
	}
	files = slices.DeleteFunc(files, func(f string) bool {
		name := filepath.Base(f)
		// A lock of a namespace that exists is no leftover.
		return name == "expected" || name == fillName || strings.HasPrefix(name, "netns-")
	})
	if len(files) > 0 {
		return fmt.Errorf("%s is left", strings.Join(files, ", "))
	}
	return nil
}

// judgeRest judges what is outside of the pods.
func (r *run) judgeRest() {
	r.soothe()
	if r.has(clearsDir) {
		removeDamaged()
	}
	if r.harms() {
		_, _ = r.command("status") // a command tidies away what the killed have left
	}
	if err := wait(r.limit(), r.leftovers); err != nil {
		r.breaks("no process and no file is left behind", "%v", err)
	}
	if out, err := r.command("status", "-o", "json"); err != nil || strings.TrimSpace(out) != "[]" {
		r.breaks("status tells what is frozen", "nothing is, and it says %s", strings.TrimSpace(out))
	}
	if now, err := ruleset(""); err != nil || now != r.outer {
		r.breaks("the host's own network is never touched", "its rules are\n%s\nand were\n%s: %v", now, r.outer, err)
	}
}
