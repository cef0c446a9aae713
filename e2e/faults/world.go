// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// serveWorld does the runs that are ordered, one after the other, in a lab.
func serveWorld(in io.Reader, out io.Writer) error {
	if os.Getenv("NETFREEZE_IN_LAB") == "" {
		return errors.New("a world changes the machine that it is on: it runs in the lab only, see make faults")
	}
	for _, dir := range []string{"/usr/local", criuDir} {
		if said, err := exec.Command("cp", "-a", filepath.Join(built, "dest", dir)+"/.", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("install: %w: %s", err, said)
		}
	}
	// A small file system of its own, which a fault can fill or make read-only.
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("faults", stateDir, "tmpfs", 0, "size=512k,mode=700"); err != nil {
		return fmt.Errorf("mount %s: %w", stateDir, err)
	}
	s, err := newSteps()
	if err != nil {
		return err
	}
	orders := bufio.NewScanner(in)
	for orders.Scan() {
		var o order
		if err := json.Unmarshal(orders.Bytes(), &o); err != nil {
			return err
		}
		r := carryOut(s, o)
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return err
		}
	}
	return orders.Err()
}

// carryOut does one run and cleans up after it.
func carryOut(s *steps, o order) result {
	sc := newScenario(o.Seed)
	r := &run{scenario: sc, dir: fmt.Sprintf("/tmp/faults%d", o.Seed), begun: time.Now(), steps: s}
	r.logf("seed %d: %s", o.Seed, sc)
	err := os.MkdirAll(r.dir, 0o755)
	for _, name := range []string{scriptBefore, scriptAfter} {
		if err == nil {
			err = os.Symlink(built+"/faults-step", filepath.Join(r.dir, name))
		}
	}
	if err == nil {
		err = r.play()
	}
	spent := time.Since(r.begun)
	res := result{Seed: o.Seed, Broken: r.broken, Spent: spent, Hit: true}
	for i := range r.combos() {
		res.Hit = res.Hit && r.struck[i].Load()
	}
	res.Hit = res.Hit || r.injected()
	res.Excused = r.excused
	if err != nil {
		res.Failed = err.Error()
		r.logf("could not be carried out: %v", err)
	}
	if len(res.Broken) > 0 || r.witnessed > 0 || err != nil || o.All {
		if err := r.keep(o.Keep); err != nil {
			res.Failed += "; keep the logs: " + err.Error()
		}
	}
	cleanErr := r.clean()
	res.Retire = cleanErr != nil || len(res.Broken) > 0 || err != nil || r.refused
	return res
}

// keep copies everything that tells what has happened.
func (r *run) keep(to string) error {
	dir := filepath.Join(to, fmt.Sprintf("faults-%d", r.seed))
	_ = os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	failed := os.WriteFile(filepath.Join(dir, "run.log"), []byte(r.log.String()), 0o644)
	for _, p := range r.pods {
		if p == nil {
			continue
		}
		if p.packets != nil {
			failed = errors.Join(failed, p.packets.save(filepath.Join(dir, p.app+".pcap")))
		}
		rules, _ := ruleset(p.app)
		failed = errors.Join(failed, os.WriteFile(filepath.Join(dir, p.app+".rules"), []byte(rules), 0o644))
	}
	for _, pattern := range []string{"*.log", "*/*.log", "*/*.out", "*/images/*.log", "*/second/*.log", "*/root/data/*log", "*.strace*"} {
		files, _ := filepath.Glob(filepath.Join(r.dir, pattern))
		for _, f := range files {
			b, err := os.ReadFile(f)
			name, _ := filepath.Rel(r.dir, f)
			to := filepath.Join(dir, name)
			failed = errors.Join(failed, err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, 0o644))
		}
	}
	records, _ := filepath.Glob(filepath.Join(stateDir, "*.json"))
	for _, f := range records {
		if b, err := os.ReadFile(f); err == nil {
			failed = errors.Join(failed, os.WriteFile(filepath.Join(dir, "record-"+filepath.Base(f)), b, 0o644))
		}
	}
	return failed
}

// clean removes everything of a run. An error means that the world is not as before.
func (r *run) clean() (failed error) {
	r.steps.handler(nil)
	r.soothe()
	for _, p := range r.pods {
		if p == nil {
			continue
		}
		if p.packets != nil {
			p.packets.stop()
		}
		for _, t := range p.trees {
			if t.client != nil && t.client.Process != nil {
				_ = t.client.Process.Kill()
			}
			for _, pid := range treeOf(t.pid) {
				if t.pid > 1 {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
			if t.engine == runc {
				r.clear(t)
			}
			if t.now != nil {
				t.now.close()
			}
			if t.dumped != nil {
				t.dumped.close()
			}
			if t.stats != nil {
				_ = t.stats.Close()
			}
			if t.peers != nil {
				_ = t.peers.Close()
			}
		}
		failed = errors.Join(failed, removePair(p.app, p.peer))
	}
	for _, p := range processes() {
		if p.ours() {
			_ = unix.Kill(p.pid, unix.SIGKILL)
			failed = errors.Join(failed, fmt.Errorf("process %d was left", p.pid))
		}
	}
	entries, err := os.ReadDir(stateDir)
	failed = errors.Join(failed, err)
	for _, e := range entries {
		failed = errors.Join(failed, os.RemoveAll(filepath.Join(stateDir, e.Name())))
	}
	return errors.Join(failed, os.RemoveAll(r.dir))
}
