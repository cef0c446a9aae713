// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// halfNFT is a kernel whose nf_tables lacks something that a freeze needs: it answers,
// but takes no rules. Or it has none, if absent is set.
type halfNFT struct {
	rules.Kernel
	absent bool
	opened []backend.Kind
}

var errLacks = errors.New("the kernel lacks something")

func (h *halfNFT) Open(ns *netns.Isolated, k backend.Kind) (rules.Freezer, error) {
	h.opened = append(h.opened, k)
	switch {
	case k == backend.Auto: // as rules.Open, which tries them in turn
		return h.Kernel.Open(ns, backend.IPTables)
	case k == backend.NFTables && h.absent:
		return nil, errLacks
	}
	f, err := h.Kernel.Open(ns, k)
	return &refusing{f}, err
}

type refusing struct{ rules.Freezer }

func (*refusing) Prepare(time.Duration) error { return errLacks }
func (*refusing) Freeze(time.Duration) error  { return errLacks }

// TestGuess freezes by another back end where nftables turns out not to work.
func TestGuess(t *testing.T) {
	fresh(t)
	for name, tc := range map[string]struct {
		absent bool
		do     func(*Freeze) error
	}{
		"absent":        {true, func(f *Freeze) error { return f.Arm() }},
		"takes no rule": {false, func(f *Freeze) error { return f.Arm() }},
		"prepared":      {false, func(f *Freeze) error { return errors.Join(f.Prepare(0), f.Arm()) }},
	} {
		t.Run(name, func(t *testing.T) {
			filter, ns := &halfNFT{absent: tc.absent}, nstest.New(t)
			f := newFreeze(t, New(filter), ns, record.Record{ID: "guess"})
			must(t, tc.do(f))
			st, err := rules.Look(ns)
			must(t, err)
			if !st.Frozen || st.Backend == backend.NFTables || f.Record.Backend != st.Backend || len(filter.opened) != 2 {
				t.Errorf("%+v, recorded as %s, opened %v", st, f.Record.Backend, filter.opened)
			}
			must(t, f.Forget())
			if st, err := rules.Look(ns); err != nil || st.Frozen {
				t.Errorf("after the thaw: %+v, %v", st, err)
			}
		})
	}
}

// TestGuessOnce reports what a back end says that has worked before, and tries no other.
func TestGuessOnce(t *testing.T) {
	fresh(t)
	filter, ns := &counting{}, nstest.New(t)
	f := newFreeze(t, New(filter), ns, record.Record{ID: "guess"})
	must(t, f.Prepare(0))
	f.whole = &refusing{f.whole}
	if err := f.Arm(); !errors.Is(err, errLacks) || filter.opened != 1 {
		t.Errorf("%v, opened %d times", err, filter.opened)
	}
	must(t, f.Forget())
}

type counting struct {
	rules.Kernel
	opened int
}

func (c *counting) Open(ns *netns.Isolated, k backend.Kind) (rules.Freezer, error) {
	c.opened++
	return c.Kernel.Open(ns, k)
}
