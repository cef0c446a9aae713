// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
)

// iptFreezer is the iptables Freezer. Its rules contain the time, by the wall
// clock, until which they drop packets.
type iptFreezer struct {
	*ipt
	// prepared means that this Freezer put the unarmed rules in place, so that a
	// freeze only has to append one rule to each chain. The nft variant takes five
	// times as long to replace a chain, and the tasks are stopped meanwhile.
	prepared bool
	syn      time.Time // until when new connections are held off, by the last Prepare
}

func openIPT(ns *netns.Isolated, k backend.Kind) (Freezer, error) {
	i, err := openTools(ns, k)
	if err != nil {
		return nil, err
	}
	return &iptFreezer{ipt: i}, nil
}

func (f *iptFreezer) Backend() backend.Kind { return f.kind }

func (f *iptFreezer) Close() error { return nil }

func (f *iptFreezer) Prepare(holdSYN time.Duration) error {
	now := time.Now()
	_, ends, err := f.ends(now)
	if err != nil {
		return err
	}
	ends.syn = time.Time{}
	if holdSYN > 0 {
		ends.syn = now.Add(holdSYN)
	}
	f.syn = ends.syn
	err = f.put("prepare a freeze", ends, unsealed)
	f.prepared = err == nil && ends.frozen.IsZero()
	return err
}

func (f *iptFreezer) Freeze(ttl time.Duration) error {
	if err := CheckTTL(ttl); err != nil {
		return err
	}
	end := time.Now().Add(ttl)
	if f.prepared && f.append(end) == nil {
		f.prepared = false
		return nil
	}
	// The rules may have changed since Prepare, so replace all of them.
	return f.put("freeze", iptEnds{frozen: end, syn: f.syn}, unsealed)
}

func (f *iptFreezer) Seal(pass uint32) error {
	_, ends, err := f.ends(time.Now())
	if err == nil && ends.frozen.IsZero() {
		err = ErrNotFrozen
	}
	if err != nil {
		return fmt.Errorf("seal %s: %w", f.ns, err)
	}
	f.prepared = false
	return f.put("seal", ends, sealedBut(pass))
}

// append arms the rules that Prepare put in place.
func (f *iptFreezer) append(end time.Time) error {
	return f.each("freeze", func(ctx context.Context, t *iptTool) error {
		rule := []string{dropUntil(end)}
		return t.apply(ctx, slices.Concat(onChain(wholeChains.in, rule), onChain(wholeChains.out, rule)))
	})
}

// Lift is Thaw, which does not run more programs than emptying the chains would.
func (f *iptFreezer) Lift() error { return f.Thaw() }

func (f *iptFreezer) Thaw() error {
	f.prepared, f.syn = false, time.Time{}
	return f.each("thaw", wholeChains.remove)
}

// iptEnds is until when all packets are dropped, and until when those are that open
// a TCP connection. The zero time means that they are not dropped.
type iptEnds struct{ frozen, syn time.Time }

// synMatch matches TCP segments with SYN and without ACK.
const synMatch = "-p tcp -m tcp --tcp-flags SYN,ACK SYN"

// put replaces the rules of both IP families. What passes is up to s. If
// put fails, a namespace that was frozen before stays frozen, because each family has either its old rules or its
// new ones. Otherwise put removes the rules of both: half a freeze is none. If the
// rules cannot be read, put leaves them as they are, for the caller to thaw.
func (f *iptFreezer) put(what string, ends iptEnds, s seal) error {
	err := f.each(what, func(ctx context.Context, t *iptTool) error {
		in, out := s.passIn(t.ipv6()), s.passOut(t.ipv6())
		if !ends.syn.IsZero() {
			in = append(in, synMatch+" "+dropUntil(ends.syn))
		}
		if !ends.frozen.IsZero() { // last, where append puts it too
			in = append(in, dropUntil(ends.frozen))
			out = append(out, dropUntil(ends.frozen))
		}
		return wholeChains.put(ctx, t, in, out)
	})
	if err == nil {
		return nil
	}
	f.prepared = false
	st, err2 := f.state()
	if err2 != nil || st.Frozen {
		return errors.Join(err, err2)
	}
	return errors.Join(err, f.Thaw())
}

func (f *iptFreezer) State() (State, error) { return f.state() }

// state returns what the rules do to the whole namespace.
func (i *ipt) state() (State, error) {
	now := time.Now()
	there, ends, err := i.ends(now)
	if err != nil || !there {
		return State{}, err
	}
	st := State{Backend: i.kind, Frozen: !ends.frozen.IsZero()}
	if st.Frozen {
		st.Left = ends.frozen.Sub(now)
	}
	st.SYNHeld = !ends.syn.IsZero() && !st.Frozen
	return st, nil
}

// ends returns until when packets are dropped. there reports whether any of our
// chains exist. Only what is frozen in both directions and for both IP families
// counts as frozen.
func (i *ipt) ends(now time.Time) (there bool, ends iptEnds, err error) {
	each := make([]iptEnds, len(i.tools))
	found := make([]bool, len(i.tools))
	err = i.each("read the rules", func(_ context.Context, t *iptTool) error {
		n := 0
		if t.ipv6() {
			n = 1
		}
		in, out, ok, err := wholeChains.list(t)
		if err != nil || !ok {
			return err
		}
		found[n] = true
		each[n] = iptEnds{frozen: earliest(endOf(in, "", now), endOf(out, "", now)), syn: endOf(in, synMatch, now)}
		return nil
	})
	if err != nil {
		return false, iptEnds{}, err
	}
	ends = each[0]
	there = found[0]
	for n := 1; n < len(each); n++ {
		there = there || found[n]
		ends.frozen = earliest(ends.frozen, each[n].frozen)
		ends.syn = earliest(ends.syn, each[n].syn)
	}
	return there, ends, nil
}

// endOf returns until when a rule drops the packets that match describes, or the
// zero time if no rule does.
func endOf(rules []string, match string, now time.Time) time.Time {
	for _, r := range rules {
		if m, end, ok := dropsUntil(r, now); ok && m == match {
			return end
		}
	}
	return time.Time{}
}

// earliest returns the earlier of two times. The zero time is before all others.
func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
