// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// ownShare is what the hook's own work may take of the frozen time of any tree, in
// milliseconds. The rest is what CRIU takes for itself and for any script, and that must
// not grow through the hook.
const ownShare = 2

// firstShare is how many times as long as an empty program the first action of a dump or a
// restore may take, which starts the settler and makes the rules. CRIU waits for it, but the
// tasks of a dump do not yet.
const firstShare = 10

// checkBounds compares the results with their bounds, as far as they were
// measured.
func (r *results) checkBounds() {
	r.Bounds = nil
	for _, s := range shapes {
		g := r.group(s.group())
		if g == nil || s.connections > 1000 {
			continue
		}
		for _, ours := range []string{withHook, withHold} {
			if ratio, ok := g.ratioTo(ours, withEmptyC, ownShare); ok {
				r.bound(fmt.Sprintf("frozen time, %s: %s less %d ms, relative to %s", s, ours, ownShare, withEmptyC), ratio, 1.1, "")
			}
		}
		if s.processes > 1 || s.threads > 1 {
			continue
		}
		ours, iptables, nftables := g.row(withHook), g.row(withIPTables), g.row(withNFTables)
		if ours == nil || iptables == nil || nftables == nil {
			continue // -locks left it out
		}
		hook := ours.Added.Median
		what := "netfreeze-hook adds to the frozen time, " + connections(s.connections)
		r.bound(what+", relative to what CRIU's iptables lock adds", hook/iptables.Added.Median, 0.12, "")
		r.bound(what+", relative to what CRIU's nftables lock adds", hook/nftables.Added.Median, 0.6, "")
	}
	if g := r.group("foreign"); g != nil {
		r.bound("a foreign action, relative to "+emptyGo, g.row("netfreeze-hook").Ratio, 1.3, "")
		empty := g.row(emptyGo).Median
		for _, of := range [][2]string{{"actions-dump", "pre-dump"}, {"actions-restore", "pre-restore"}} {
			if first := r.group(of[0]); first != nil {
				r.bound(of[1]+" with one connection, relative to "+emptyGo, first.row(of[1]).Median/empty, firstShare, "")
			}
		}
	}
	if g := r.group("growth-netns"); g != nil {
		// Within noise: no more than the spread with 1 connection.
		first, last := g.row(connections(1)), g.row(connections(many))
		noise := max(first.High-first.Low, 0.1*first.Median)
		what := fmt.Sprintf("scope netns: %s take longer than 1 connection by", connections(many))
		r.bound(what, last.Median-first.Median, noise, "ms")
	}
	if g := r.group("growth-connections"); g != nil {
		first, last := g.row(connections(1)), g.row(connections(many))
		r.bound("scope connections: each connection takes", (last.Median-first.Median)/(many-1)*1000, 5, "µs")
	}
	if g := r.group("silent-end"); g != nil {
		for _, row := range g.Rows[1:] { // the first row is SIGKILL alone
			r.bound("silent end of "+connections(many)+", "+row.Case, row.Median, 150, "ms")
		}
	}
}

func (r *results) bound(what string, figure, limit float64, unit string) {
	r.Bounds = append(r.Bounds, Bound{what, figure, limit, unit, figure <= limit})
}
