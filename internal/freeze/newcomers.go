// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// An orchestrator may start a container again, in the same namespace, that a dump has
// ended: kubelet does in the same sandbox. The namespace is frozen for a restore that
// nobody plans, and the new container has no network. It is known by its first process,
// which is the first one of a pid namespace: a command that enters the namespace is not.

// newcomers are the first processes of containers in a network namespace that were not
// there when it was looked first.
type newcomers struct {
	path   string // what /proc/PID/ns/net says
	known  map[proc.Ref]bool
	seen   map[proc.Ref]bool // the last time
	warned bool
}

func lookForNewcomers(ns netns.ID) *newcomers {
	n := &newcomers{path: ns.String(), known: map[proc.Ref]bool{}}
	for _, p := range n.first() {
		n.known[p] = true
	}
	return n
}

// first returns the processes in the namespace that are the first of a pid namespace.
func (n *newcomers) first() (found []proc.Ref) {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, l := range links {
		if to, err := os.Readlink(l); err != nil || to != n.path {
			continue // or it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(l))))
		if err != nil {
			continue
		}
		st, err := proc.ReadStat(pid)
		if err == nil && proc.IsInit(pid) {
			found = append(found, proc.Ref{PID: pid, Start: st.Start})
		}
	}
	return found
}

// look returns a newcomer that was there the last time, too; what is gone by then was no
// container that wants a network.
func (n *newcomers) look() (p proc.Ref, ok bool) {
	now := map[proc.Ref]bool{}
	for _, f := range n.first() {
		if n.known[f] {
			continue
		}
		if n.seen[f] {
			p, ok = f, true
		}
		now[f] = true
	}
	n.seen = now
	return p, ok
}

// meet thaws the namespace of a record that waits for a restore if another container has
// started there. It reports whether there is nothing left to wait for.
func (k *Keeper) meet(n *newcomers, r *record.Record, thaw bool, log *logrus.Logger) (done bool) {
	p, ok := n.look()
	if !ok || n.warned || restoring(r) {
		return false
	}
	what := fmt.Sprintf("pid %d has started in %s, which is frozen for a restore of %s", p.PID, r.NetNS, r.Describe())
	if !thaw {
		n.warned = true
		log.Warn(code.New(code.Newcomer, fmt.Sprintf("%s: it has no network until %s, or netfreeze thaw %s (restart = \"keep\")", what, r.Ends().Format("15:04:05"), r.ThawTarget())))
		r.Note = fmt.Sprintf("pid %d has started in the namespace and has no network", p.PID)
		if err := saveByHand(r); err != nil {
			log.Warn(code.Any(err))
		}
		return false
	}
	if err := k.Thaw(0, r); err != nil {
		log.Errorf("%s, and cannot be given its network: %v", what, code.Any(err))
		return false
	}
	log.Warn(code.New(code.Newcomer, fmt.Sprintf("%s: it is no restore of it, so its network was thawed; peers of the former connections get a reset now (restart = \"keep\" would keep it frozen)", what)))
	return true
}

// restoring reports whether a restore is at work in the record's namespace, whose tasks
// are no newcomers.
func restoring(r *record.Record) bool {
	all, _ := record.All()
	return slices.ContainsFunc(all, func(o *record.Record) bool {
		return o.Op == record.Restore && o.NetNS == r.NetNS
	})
}
