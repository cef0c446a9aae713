package rules

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// iptChains is a pair of chains of one's own, for arriving and leaving packets.
// Their names never change: it is how the rules are found again.
type iptChains struct{ in, out string }

// wholeChains are those of a whole namespace's freeze.
var wholeChains = iptChains{"CRIU-NETFREEZE-IN", "CRIU-NETFREEZE-OUT"}

// ownerChains are those of an owner's frozen connections. With the longest
// owner they have just the 28 characters that a chain's name may have.
func ownerChains(owner string) iptChains {
	return iptChains{"CRIU-FREEZE-" + owner + "-IN", "CRIU-FREEZE-" + owner + "-OUT"}
}

// hooks returns each chain with the built-in chain that leads to it.
func (c iptChains) hooks() [2]struct{ base, chain string } {
	return [2]struct{ base, chain string }{{"PREROUTING", c.in}, {"OUTPUT", c.out}}
}

// put replaces all rules of the chains, creates the chains if need be, and makes
// them come first in the raw table. A rule is given without its chain. All of
// this happens at one moment or, if there is an error, not at all: packets that
// the chains drop never pass in between.
func (c iptChains) put(ctx context.Context, t *iptTool, in, out []string) error {
	rules := slices.Concat(onChain(c.in, in), onChain(c.out, out))
	// Mostly there is one jump to each chain. If not, this changes nothing.
	if t.apply(ctx, append(c.place([2]int{1, 1}), rules...)) == nil {
		return nil
	}
	jumps, err := c.jumps(t)
	if err != nil {
		return err
	}
	return t.apply(ctx, append(c.place(jumps), rules...))
}

// place returns the lines that create the chains, or empty those that are there,
// and replace the jumps to each of them, of which there are so many, by one at
// the front.
func (c iptChains) place(jumps [2]int) []string {
	var create, jump []string
	for i, h := range c.hooks() {
		create = append(create, fmt.Sprintf(":%s - [0:0]", h.chain))
		jump = append(jump, slices.Repeat([]string{fmt.Sprintf("-D %s -j %s", h.base, h.chain)}, jumps[i])...)
		jump = append(jump, fmt.Sprintf("-I %s 1 -j %s", h.base, h.chain))
	}
	return append(create, jump...)
}

// jumps counts the jumps to each chain, from where hooks says.
func (c iptChains) jumps(t *iptTool) (n [2]int, err error) {
	there, err := chainsOf(t)
	if err != nil {
		return n, err
	}
	for i, h := range c.hooks() {
		if !slices.Contains(there, h.chain) {
			continue // nothing can jump there
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

// remove deletes the chains and what leads to them. It copes with any half of
// that being there.
func (c iptChains) remove(ctx context.Context, t *iptTool) error {
	var lines []string
	for _, h := range c.hooks() {
		lines = append(lines, fmt.Sprintf("-D %s -j %s", h.base, h.chain), "-F "+h.chain, "-X "+h.chain)
	}
	if t.apply(ctx, lines) == nil {
		return nil // everything was there, once
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

// chainsOf returns the names of all chains of the raw table. One that is not
// there must not be asked for by name: what the nft variant says then differs
// from version to version.
func chainsOf(t *iptTool) ([]string, error) {
	chains, err := t.ListChains(rawTable)
	if isNotThere(err) {
		return nil, nil // nor is the table
	}
	return chains, err
}

// list returns the rules of both chains in the form of iptables -S, without
// "-A CHAIN". there is false, without an error, if one of them is missing.
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

// passRules are the rules for what a freeze lets through.
func passRules(ipv6 bool) []string {
	rules := []string{fmt.Sprintf("-m mark --mark 0x%x -j RETURN", Mark)}
	if ipv6 {
		for _, t := range []int{neighbourSolicitation, neighbourAdvertisement} {
			rules = append(rules, fmt.Sprintf("-p ipv6-icmp -m icmp6 --icmpv6-type %d -j RETURN", t))
		}
	}
	return rules
}

// The time match compares the wall clock, in whole seconds and UTC, and still
// matches in the second that it names (iptables-extensions(8), "time").
const (
	timeMatch = "-m time --datestop "
	timeForm  = "2006-01-02T15:04:05"
	dropNow   = " -j DROP"
)

// dropUntil is the end of a rule that drops until a time, rounded up to a
// full second.
func dropUntil(end time.Time) string {
	last := ceil(end).Add(-time.Second)
	return timeMatch + last.UTC().Format(timeForm) + dropNow
}

func ceil(t time.Time) time.Time { return t.Add(time.Second - 1).Truncate(time.Second) }

// dropsUntil is the inverse of dropUntil: it returns the time up to which a
// rule drops what match says. ok is false if the rule is another one or its
// time is over.
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
