// SPDX-License-Identifier: Apache-2.0

// Package freeze is one recorded freeze: the rules that drop packets, the record
// that says whose they are, the guard that keeps the host's network out of it,
// and the lock that makes changes of these one. A dump, a restore, the CNI
// plugin, the OCI hook and the commands all freeze and thaw through it, and
// nobody else takes a namespace's lock.
//
//	open    find out what is frozen there already, and choose a back end
//	arm     drop packets from now on, for a time to live
//	lift    give the network back while somebody waits; rules may stay
//	thaw    take the rules away, unless another container of the pod needs them
//	forget  thaw, and remove the record
//
// A record changes or goes only under its namespace's lock, so that two that let
// go of a namespace at the same moment never both leave the rules to the other.
package freeze

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// Keeper makes, finds and ends the recorded freezes of this machine by one packet
// filter.
type Keeper struct {
	filter rules.Filter
}

// New returns a Keeper. All but tests want rules.Kernel.
func New(filter rules.Filter) *Keeper { return &Keeper{filter} }

// stage is how far a Freeze has got.
type stage int

const (
	closed   stage = iota // no namespace is open yet
	opened                // the rules drop nothing, as far as they are ours
	armed                 // packets are dropped
	lifted                // nothing is dropped any more, unarmed rules may be there
	unfrozen              // and no rule is left
)

// Freeze is the freeze of one transaction. Its methods must not be called
// concurrently. What has to survive the process is in Record.
type Freeze struct {
	// Record describes the freeze and the transaction that it belongs to. Freeze
	// keeps NetNS, Cookie, Path, Scope, Backend, Until and ForeignLocks; the rest
	// is the transaction's.
	Record *record.Record

	*Keeper
	log     *logrus.Logger
	backend backend.Kind
	ttl     time.Duration

	ns    *netns.Namespace
	whole rules.Freezer     // scope netns
	guess bool              // its back end was not tried yet, see openWhole
	conns rules.ConnFreezer // scope connections
	found found
	stage stage
	since time.Time // when it was armed first
	until time.Time // when it was lifted
}

// found is what was there when the namespace was opened.
type found struct {
	frozen bool      // it was frozen already
	mixed  bool      // perhaps by another back end than ours
	until  time.Time // when that freeze ends
}

// Freeze returns a freeze that has no namespace yet. It will be made by the back
// end b, for ttl at most, and is described by rec. Neither writes anything.
func (k *Keeper) Freeze(rec *record.Record, b backend.Kind, ttl time.Duration, log *logrus.Logger) *Freeze {
	return &Freeze{Record: rec, Keeper: k, log: log, backend: b, ttl: ttl}
}

// NetNS returns the namespace, nil until Open has succeeded. It is closed by Close.
func (f *Freeze) NetNS() *netns.Namespace { return f.ns }

// Adopted reports whether the namespace was frozen before this freeze came.
func (f *Freeze) Adopted() bool { return f.found.frozen }

// Armed reports whether this freeze drops packets, as far as it knows.
func (f *Freeze) Armed() bool { return f.stage == armed }

// Lifted reports whether this freeze has ended: nothing of it drops packets.
func (f *Freeze) Lifted() bool { return f.stage == lifted || f.stage == unfrozen }

// FrozenFor returns how long this freeze has dropped packets until now; 0 if it
// never did, as far as it knows.
func (f *Freeze) FrozenFor() time.Duration {
	if f.since.IsZero() {
		return 0
	}
	return time.Since(f.since)
}

// Times returns when this freeze began and when it ended, as far as it knows; a time
// that is not known is zero.
func (f *Freeze) Times() (began, ended time.Time) { return f.since, f.until }

// Sockets lists the TCP sockets of the namespace.
func (f *Freeze) Sockets() ([]tcp.Socket, error) { return netns.In(f.ns, tcp.List) }

// Open makes ns, which it owns from then on, the namespace of the freeze, and
// opens a back end on it. In the namespace of CRIU itself, usually the host's,
// only the tree's own connections will be frozen; any other namespace is frozen as
// a whole. One that must not be is refused with a [*netns.RefusedError]. After an
// error ns is still the caller's.
func (f *Freeze) Open(ns *netns.Namespace) error { return f.open(locked, ns) }

func (f *Freeze) open(lock locker, ns *netns.Namespace) error {
	own, err := netns.OpenPID(f.Record.CRIU.PID, f.Record.CRIU.Start)
	if err != nil {
		return fmt.Errorf("find out which network namespace CRIU runs in: %w", err)
	}
	defer own.Close()
	// A back end is chosen by trying its rules out: nobody else may rely on them
	// meanwhile.
	err = lock(ns, func() error {
		f.closeRules()
		if ns.ID() == own.ID() {
			err = f.openConnections(ns)
		} else {
			err = f.openWhole(ns, own.ID())
		}
		if err != nil {
			return err
		}
		return f.identify(ns)
	})
	if err != nil {
		return err
	}
	f.ns, f.stage = ns, opened
	return nil
}

// identify notes in the record which namespace it is about.
func (f *Freeze) identify(ns *netns.Namespace) (err error) {
	f.Record.NetNS, f.Record.Path = ns.ID(), netns.Mounted(ns.ID())
	f.Record.Cookie, err = ns.Cookie()
	return err
}

func (f *Freeze) openConnections(ns *netns.Namespace) (err error) {
	f.Record.Scope = record.Connections
	if f.conns, err = f.filter.OpenConns(ns, f.backend, f.Record.Owner); err != nil {
		return err
	}
	f.Record.Backend = f.conns.Backend()
	if f.Record.ForeignLocks == nil {
		locks, _ := f.filter.CRIULocks(ns) // none where there is no nf_tables
		f.noteLocks(locks)
	}
	return nil
}

// noteLocks notes which locks of CRIU's own were there before, unless somebody has looked
// already.
func (f *Freeze) noteLocks(locks []string) {
	if f.Record.ForeignLocks == nil {
		f.Record.ForeignLocks = append([]string{}, locks...)
	}
}

func (f *Freeze) openWhole(ns *netns.Namespace, criu netns.ID) error {
	f.Record.Scope = record.NetNS
	isolated, err := ns.Isolate(criu)
	if err != nil {
		return err
	}
	survey := f.survey(ns)
	if err = f.openFilter(isolated, survey); err != nil {
		return err
	}
	f.Record.Backend = f.whole.Backend()
	before := survey()
	if before.err != nil {
		f.log.Debugf("cannot tell what is frozen already: %v", before.err)
	}
	f.found = found{
		frozen: f.found.frozen || before.Frozen,
		mixed:  before.err != nil || before.Frozen && before.Backend != f.whole.Backend(),
		until:  time.Now().Add(before.Left),
	}
	f.noteLocks(before.locks)
	return nil //nolint:nilerr // what cannot be told is removed at the thaw
}

// surveyed is what was in force in a namespace already, and whether that can be told:
// rules that came out of images may be in a form that iptables cannot read. Whatever is
// there then is removed at the thaw.
type surveyed struct {
	rules.State
	locks []string // CRIU's own
	err   error
}

// survey looks at ns beside its caller. The function that it returns waits for that.
func (f *Freeze) survey(ns *netns.Namespace) func() surveyed {
	wait := sync.OnceValue(func() (s surveyed) {
		s.State, s.locks, s.err = f.filter.Survey(ns)
		return s
	})
	go wait()
	return wait
}

// openFilter opens the back end. Where any will do, nftables is taken if it answers, and
// only if it cannot freeze after all are all of them tried (see tryRules): to try rules
// out means to remove them again, and while the kernel does that, whoever asks it for
// others waits, CRIU's caller with them. The survey must be over by then.
func (f *Freeze) openFilter(ns *netns.Isolated, survey func() surveyed) (err error) {
	if f.guess = f.backend == backend.Auto; f.guess {
		if f.whole, err = f.filter.Open(ns, backend.NFTables); err == nil {
			if _, err = f.whole.State(); err == nil {
				return nil
			}
			f.closeRules()
		}
		f.guess = false
	}
	survey()
	f.whole, err = f.filter.Open(ns, f.backend)
	return err
}

// tryRules changes the rules of a whole namespace. If that fails by a back end that was
// not tried before, it is done by one that works.
func (f *Freeze) tryRules(change func(rules.Freezer) error) error {
	err := change(f.whole)
	if err == nil || !f.guess {
		f.guess = false
		return err
	}
	f.guess = false
	isolated, err2 := f.isolate()
	if err2 != nil {
		return errors.Join(err, err2)
	}
	whole, err2 := f.filter.Open(isolated, backend.Auto)
	if err2 != nil {
		return errors.Join(err, err2)
	}
	f.log.Debugf("nftables cannot freeze %s, so %s does: %v", f.ns, whole.Backend(), err)
	f.closeRules()
	f.whole, f.Record.Backend = whole, whole.Backend()
	f.found.mixed = true // whatever the other one has left goes at the thaw
	return change(f.whole)
}

// Reopen takes up the freeze of a process that was killed, as its record
// describes it. Where that process had not opened a namespace yet there is nothing
// to do.
func (f *Freeze) Reopen() error {
	if f.Record.NetNS == (netns.ID{}) {
		return nil
	}
	ns, err := find(f.Record)
	if err != nil {
		return fmt.Errorf("find the network namespace of the transaction again: %w", err)
	}
	f.found.frozen = true               // by whom cannot be told any more, so it is not thawed by mistake
	return f.open(lockedIfPossible, ns) // what is left to do may be to take it away
}

// Leave closes the namespace after all, for another one to be opened. A freeze
// that was not there before is thawed.
func (f *Freeze) Leave() error {
	var err error
	if !f.found.frozen {
		err = f.Thaw()
	}
	f.closeRules()
	err = errors.Join(err, f.ns.Close())
	f.ns, f.stage, f.found, f.since, f.until = nil, closed, found{}, time.Time{}, time.Time{}
	return err
}

// closeRules lets go of the back end. Rules stay.
func (f *Freeze) closeRules() {
	if f.whole != nil {
		_ = f.whole.Close()
	}
	if f.conns != nil {
		_ = f.conns.Close()
	}
	f.whole, f.conns = nil, nil
}

// Close closes the namespace. Rules and record stay.
func (f *Freeze) Close() {
	f.closeRules()
	if f.ns != nil {
		_ = f.ns.Close()
	}
}

// Save writes the record.
func (f *Freeze) Save() error {
	if f.ns == nil {
		return f.Record.Save() // nobody else looks for it yet
	}
	return f.locked(f.save)
}

// save is Save under the namespace's lock. Once only the freeze is left of a
// transaction, a sibling in the pod may have narrowed it (see narrow).
func (f *Freeze) save() error {
	if f.Record.Phase != record.Running && f.Record.Phase != record.Committed {
		if now, err := record.Load(f.Record.ID); err == nil && now.Scope == record.Connections {
			f.Record.Scope = now.Scope
		}
	}
	return f.Record.Save()
}

// find opens a record's namespace, wherever it is to be found now. The error wraps
// netns.ErrGone if it has gone, even if another one has its inode.
func find(r *record.Record) (*netns.Namespace, error) {
	for _, p := range r.Tree {
		if ns, err := netns.OpenPID(p.PID, p.Start); err == nil {
			if ns.ID() == r.NetNS {
				return ns, nil
			}
			_ = ns.Close()
		}
	}
	ns, err := netns.Find(r.NetNS)
	if err != nil {
		return nil, err
	}
	if cookie, err := ns.Cookie(); err == nil && cookie != 0 && r.Cookie != 0 && cookie != r.Cookie {
		_ = ns.Close()
		return nil, fmt.Errorf("%s: %w", r.NetNS, netns.ErrGone)
	}
	return ns, nil
}
