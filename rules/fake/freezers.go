// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"errors"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// errClosed is returned by all methods of a freezer after Close.
var errClosed = errors.New("the freezer is closed")

// freezer implements rules.Freezer.
type freezer struct {
	filter *Filter
	space  *space
	kind   backend.Kind
	ours   bool // this freezer put the rules in place
	closed bool
}

func (z *freezer) call(method string, do func() error) error {
	return z.filter.call(method, func() error {
		if z.closed {
			return errClosed
		}
		return do()
	})
}

func (z *freezer) Backend() backend.Kind { return z.kind }

func (z *freezer) Prepare(holdSYN time.Duration) error {
	return z.call("Prepare", func() error {
		now := z.filter.now
		w := &whole{syn: now.Add(max(holdSYN, 0))}
		if before := z.space.whole[z.kind]; before != nil {
			w.frozen = before.frozen
		}
		z.space.whole[z.kind], z.ours = w, true
		return nil
	})
}

func (z *freezer) Freeze(ttl time.Duration) error {
	return z.call("Freeze", func() error {
		if err := rules.CheckTTL(ttl); err != nil {
			return err
		}
		w := z.space.whole[z.kind]
		if w == nil || !z.ours { // which ends a hold of new connections by another freezer
			w = &whole{}
		}
		w.frozen, w.sealed = z.filter.now.Add(ttl), false
		z.space.whole[z.kind], z.ours = w, true
		return nil
	})
}

// Seal never returns rules.ErrPacketSockets by itself.
func (z *freezer) Seal(pass uint32) error {
	return z.call("Seal", func() error {
		if !z.filter.state(z.space, z.kind).Frozen {
			return rules.ErrNotFrozen
		}
		z.space.whole[z.kind].sealed, z.space.whole[z.kind].pass = true, pass
		z.ours = false
		return nil
	})
}

// Lift leaves unarmed rules behind if the real back end would.
func (z *freezer) Lift() error {
	return z.call("Lift", func() error {
		if w := z.space.whole[z.kind]; w != nil && z.ours && z.kind == backend.NFTables {
			*w = whole{}
		} else {
			z.remove()
		}
		return nil
	})
}

func (z *freezer) Thaw() error {
	return z.call("Thaw", func() error {
		z.remove()
		return nil
	})
}

func (z *freezer) remove() {
	delete(z.space.whole, z.kind)
	z.ours = false
}

func (z *freezer) ShutWindows(tuples []tcp.Tuple, ttl time.Duration) error {
	return z.call("ShutWindows", func() error {
		if z.kind != backend.NFTables {
			return rules.ErrWindows
		}
		z.space.whole[z.kind].windows = windows{len(tuples), z.filter.now.Add(ttl)}
		return nil
	})
}

func (z *freezer) State() (st rules.State, err error) {
	err = z.call("State", func() error {
		st = z.filter.state(z.space, z.kind)
		return nil
	})
	return st, err
}

func (z *freezer) Close() error {
	z.filter.mu.Lock()
	defer z.filter.mu.Unlock()
	z.closed = true
	return nil
}

// connFreezer implements rules.ConnFreezer.
type connFreezer struct {
	filter *Filter
	space  *space
	key    connsKey
	closed bool
}

func (z *connFreezer) call(method string, do func() error) error {
	return z.filter.call(method, func() error {
		if z.closed {
			return errClosed
		}
		return do()
	})
}

func (z *connFreezer) Backend() backend.Kind { return z.key.kind }

func (z *connFreezer) Freeze(tuples []tcp.Tuple, ttl time.Duration) error {
	return z.call("ConnFreeze", func() error {
		if err := rules.CheckTTL(ttl); err != nil {
			return err
		}
		before, _ := z.filter.frozen(z.space, z.key)
		all, err := rules.MergeConns(before, tuples)
		if err != nil {
			return err
		}
		z.space.conns[z.key] = &conns{tuples: all, until: z.filter.now.Add(ttl)}
		return nil
	})
}

func (z *connFreezer) Seal(pass uint32) error {
	return z.call("ConnSeal", func() error {
		if tuples, _ := z.filter.frozen(z.space, z.key); len(tuples) > 0 {
			z.space.conns[z.key].sealed, z.space.conns[z.key].pass = true, pass
		}
		return nil
	})
}

func (z *connFreezer) Thaw() error {
	return z.call("ConnThaw", func() error {
		delete(z.space.conns, z.key)
		return nil
	})
}

func (z *connFreezer) ShutWindows(tuples []tcp.Tuple, ttl time.Duration) error {
	return z.call("ConnShutWindows", func() error {
		if z.key.kind != backend.NFTables {
			return rules.ErrWindows
		}
		z.space.conns[z.key].windows = windows{len(tuples), z.filter.now.Add(ttl)}
		return nil
	})
}

func (z *connFreezer) Frozen() (tuples []tcp.Tuple, left time.Duration, err error) {
	err = z.call("Frozen", func() error {
		tuples, left = z.filter.frozen(z.space, z.key)
		return nil
	})
	return tuples, left, err
}

func (z *connFreezer) Close() error {
	z.filter.mu.Lock()
	defer z.filter.mu.Unlock()
	z.closed = true
	return nil
}
