// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// iptChains names a pair of our own chains, for arriving and leaving packets. The
// names never change, since the rules are found by them.
type iptChains struct{ in, out string }

// wholeChains are the chains of a whole namespace's freeze.
var wholeChains = iptChains{"CRIU-NETFREEZE-IN", "CRIU-NETFREEZE-OUT"}

// ownerChains returns the chains for an owner's frozen connections. If the owner is
// as long as it can be, their names have the 28 characters that iptables allows.
func ownerChains(owner string) iptChains {
	return iptChains{"CRIU-FREEZE-" + owner + "-IN", "CRIU-FREEZE-" + owner + "-OUT"}
}

// hooks returns each chain with the built-in chain that jumps to it.
func (c iptChains) hooks() [2]struct{ base, chain string } {
	return [2]struct{ base, chain string }{{"PREROUTING", c.in}, {"OUTPUT", c.out}}
}

// put replaces all rules of the chains, given without the name of the chain. It
// creates the chains if necessary, and makes them the first ones of the raw table.
// All of this happens at one moment or, if there is an error, not at all, so that
// what is frozen is never open in between.
func (c iptChains) put(ctx context.Context, t *iptTool, in, out []string) error {
	rules := slices.Concat(onChain(c.in, in), onChain(c.out, out))
	// Usually there is one jump to each chain. If not, this fails and changes nothing.
	if t.apply(ctx, append(c.place([2]int{1, 1}), rules...)) == nil {
		return nil
	}
	jumps, err := c.jumps(t)
	if err != nil {
		return err
	}
	return t.apply(ctx, append(c.place(jumps), rules...))
}

// place returns the lines that create the chains, or empty existing ones, and put a
// jump to each of them first. jumps is how many jumps to each there are already,
// which the lines remove.
func (c iptChains) place(jumps [2]int) []string {
	var create, jump []string
	for i, h := range c.hooks() {
		create = append(create, fmt.Sprintf(":%s - [0:0]", h.chain))
		jump = append(jump, slices.Repeat([]string{fmt.Sprintf("-D %s -j %s", h.base, h.chain)}, jumps[i])...)
		jump = append(jump, fmt.Sprintf("-I %s 1 -j %s", h.base, h.chain))
	}
	return append(create, jump...)
}

// jumps returns how many jumps lead to each chain.
func (c iptChains) jumps(t *iptTool) (n [2]int, err error) {
	there, err := chainsOf(t)
	if err != nil {
		return n, err
	}
	for i, h := range c.hooks() {
		if !slices.Contains(there, h.chain) {
			continue // so there can be no jump to it
		}
		rules, err := t.List(rawTable, h.base)
		if err != nil {
			return n, err
		}
		for _, r := range rules {
			if r == fmt.Sprintf("-A %s -j %s", h.base, h.chain) {
				n[i]++
			}
		}
	}
	return n, nil
}

func onChain(chain string, rules []string) []string {
	lines := make([]string, len(rules))
	for i, r := range rules {
		lines[i] = "-A " + chain + " " + r
	}
	return lines
}

// remove deletes the chains and all jumps to them, even if only some of them exist.
func (c iptChains) remove(ctx context.Context, t *iptTool) error {
	var lines []string
	for _, h := range c.hooks() {
		lines = append(lines, fmt.Sprintf("-D %s -j %s", h.base, h.chain), "-F "+h.chain, "-X "+h.chain)
	}
	if t.apply(ctx, lines) == nil {
		return nil // everything existed, exactly once
	}
	there, err := chainsOf(t)
	if err != nil {
		return err
	}
	for _, h := range c.hooks() {
		if !slices.Contains(there, h.chain) {
			continue
		}
		for err == nil {
			if err = ctx.Err(); err == nil {
				err = t.Delete(rawTable, h.base, "-j", h.chain)
			}
		}
		if !isNotThere(err) {
			return err
		}
		if err = t.ClearAndDeleteChain(rawTable, h.chain); err != nil {
			return err
		}
	}
	return nil
}

// chainsOf returns the names of all chains of the raw table. It is used to avoid
// asking for a chain that does not exist, because the nft variant's answer to that
// differs between versions.
func chainsOf(t *iptTool) ([]string, error) {
	chains, err := t.ListChains(rawTable)
	if isNotThere(err) {
		return nil, nil // the table does not exist either
	}
	return chains, err
}

// list returns the rules of both chains as iptables -S prints them, without
// "-A CHAIN". If one of the chains is missing, there is false, which is no error.
func (c iptChains) list(t *iptTool) (in, out []string, there bool, err error) {
	chains, err := chainsOf(t)
	if err != nil {
		return nil, nil, false, err
	}
	var lists [2][]string
	for i, h := range c.hooks() {
		if !slices.Contains(chains, h.chain) {
			return nil, nil, false, nil
		}
		lines, err := t.List(rawTable, h.chain)
		if err != nil {
			return nil, nil, false, err
		}
		for _, line := range lines {
			if rule, ok := strings.CutPrefix(line, "-A "+h.chain+" "); ok {
				lists[i] = append(lists[i], rule)
			}
		}
	}
	return lists[0], lists[1], true, nil
}

// The time match compares the wall clock in UTC, in whole seconds, and still
// matches during the second that it names (iptables-extensions(8), "time").
const (
	timeMatch = "-m time --datestop "
	timeForm  = "2006-01-02T15:04:05"
	dropNow   = " -j DROP"
)

// dropUntil returns the end of a rule that drops packets until a time, rounded up
// to a full second.
func dropUntil(end time.Time) string {
	last := ceil(end).Add(-time.Second)
	return timeMatch + last.UTC().Format(timeForm) + dropNow
}

func ceil(t time.Time) time.Time { return t.Add(time.Second - 1).Truncate(time.Second) }

// dropsUntil is the inverse of dropUntil: it splits a rule into what it matches and
// the time until which it drops that. ok is false if it is not such a rule or if
// its time is over.
func dropsUntil(rule string, now time.Time) (match string, end time.Time, ok bool) {
	match, rest, ok := strings.Cut(rule, timeMatch)
	if !ok {
		return "", time.Time{}, false
	}
	date, ok := strings.CutSuffix(rest, dropNow)
	if !ok {
		return "", time.Time{}, false
	}
	last, err := time.Parse(timeForm, date)
	if err != nil {
		return "", time.Time{}, false
	}
	end = last.Add(time.Second)
	return strings.TrimSpace(match), end, end.After(now)
}
