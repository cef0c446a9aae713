// SPDX-License-Identifier: Apache-2.0

// Package fake is a packet filter in memory, for testing the callers of package
// rules without a kernel and without packets. It keeps the contract of
// [rules.Filter], prints what is in force as text, has a clock of its own, and
// fails when it is told to.
package fake

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// Filter is a [rules.Filter] that drops nothing. It may be used concurrently, and so
// may the freezers that it opens.
type Filter struct {
	mu     sync.Mutex
	now    time.Time
	spaces map[netns.ID]*space
	fails  map[string]*failure
	calls  []string
}

// space is what is in force in one namespace.
type space struct {
	whole map[backend.Kind]*whole
	conns map[connsKey]*conns
	locks []string // CRIU's own
}

// whole is one back end's rules for a whole namespace: until when they drop all
// packets, until when those that open a connection, and whether the freeze is sealed.
type whole struct {
	frozen, syn time.Time
	sealed      bool
	windows     windows
	pass        uint32 // what Seal was told
}

// connsKey identifies rules for single connections.
type connsKey struct {
	kind  backend.Kind
	owner string
}

// conns is one owner's rules for single connections, until when they drop packets,
// and whether the freeze is sealed.
type conns struct {
	tuples []tcp.Tuple
	until  time.Time
	sealed bool
	pass   uint32 // what Seal was told

	windows windows
}

// windows is how many connections have their windows shut, and until when.
type windows struct {
	count int
	until time.Time
}

// failure is what calls of a method return.
type failure struct {
	err  error
	left int // how many more calls fail, -1 for all
}

// methods has the names that Fail and FailTimes accept. The value is whether Calls
// returns successful calls.
var methods = map[string]bool{
	"Open": true, "OpenConns": true, "Look": false, "ThawAll": true, "CRIULocks": false, "RemoveCRIULocks": true,
	"ShutWindows": true, "ConnShutWindows": true,
	"Prepare": true, "Freeze": true, "Seal": true, "Lift": true, "Thaw": true, "State": false,
	"ConnFreeze": true, "ConnSeal": true, "ConnThaw": true, "Frozen": false,
}

// kinds are the back ends that can have rules, in the order in which Look prefers
// them.
var kinds = []backend.Kind{backend.NFTables, backend.IPTablesNFT, backend.IPTablesLegacy}

// New returns a filter in which nothing is in force.
func New() *Filter {
	return &Filter{
		now:    time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC), // any time but the zero one
		spaces: map[netns.ID]*space{},
		fails:  map[string]*failure{},
	}
}

// String prints what is in force, one line for each thing, sorted:
//
//	whole nftables prepared                      rules that drop nothing
//	whole nftables prepared syn-held             rules that drop new connections
//	whole nftables frozen 15m0s                  and the time left
//	whole nftables frozen 15m0s sealed           packets with rules.Mark are dropped, too
//	whole nftables frozen 15m0s sealed answers   but answers pass
//	conns nftables t00000001 2 frozen 15m0s      an owner's connections; may be sealed
//	conns nftables t00000001 0                   rules whose time is over
//	... 2 windows shut                           after any of these
//	criu-lock CRIU-123
//
// It is "" if nothing is left, not even rules that drop nothing. Once more than one
// namespace has been opened, or given a lock, each line begins with the
// namespace's ID.
func (f *Filter) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for id, s := range f.spaces {
		prefix := ""
		if len(f.spaces) > 1 {
			prefix = id.String() + " "
		}
		for _, line := range f.lines(s) {
			lines = append(lines, prefix+line)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func sealed(is bool, pass uint32) string {
	switch {
	case is && pass != 0:
		return " sealed answers"
	case is:
		return " sealed"
	}
	return ""
}

func (f *Filter) lines(s *space) (lines []string) {
	for k := range s.whole {
		line := fmt.Sprintf("whole %s ", k)
		switch st := f.state(s, k); {
		case st.Frozen:
			line += "frozen " + st.Left.String() + sealed(s.whole[k].sealed, s.whole[k].pass)
		case st.SYNHeld:
			line += "prepared syn-held"
		default:
			line += "prepared"
		}
		lines = append(lines, line+f.shut(s.whole[k].windows))
	}
	for key := range s.conns {
		tuples, left := f.frozen(s, key)
		line := fmt.Sprintf("conns %s %s %d", key.kind, key.owner, len(tuples))
		if len(tuples) > 0 {
			line += " frozen " + left.String() + sealed(s.conns[key].sealed, s.conns[key].pass)
		}
		lines = append(lines, line+f.shut(s.conns[key].windows))
	}
	for _, name := range s.locks {
		lines = append(lines, "criu-lock "+name)
	}
	return lines
}

// shut describes windows that are shut.
func (f *Filter) shut(w windows) string {
	if w.count == 0 || f.left(w.until) == 0 {
		return ""
	}
	return fmt.Sprintf(" %d windows shut", w.count)
}

// Advance moves the filter's clock forward; nothing else does. A freeze whose time
// is over then has ended, but its rules stay, as they do in the kernel.
func (f *Filter) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

// Fail makes every call of a method fail with err and change nothing, until it is
// called again with nil. The methods of [rules.Filter] and [rules.Freezer] go by
// their own names, those of [rules.ConnFreezer] by ConnFreeze, ConnThaw and Frozen.
// Fail panics if there is no such method.
func (f *Filter) Fail(method string, err error) { f.fail(method, err, -1) }

// FailTimes is like Fail, but only for the next n calls.
func (f *Filter) FailTimes(method string, err error, n int) { f.fail(method, err, n) }

func (f *Filter) fail(method string, err error, n int) {
	if _, ok := methods[method]; !ok {
		panic(fmt.Sprintf("fake: no method %q", method))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil || n == 0 {
		delete(f.fails, method)
		return
	}
	f.fails[method] = &failure{err, n}
}

// Calls returns, in order, the names (see Fail) of the methods that were called
// since the last Calls: those that open a freezer or may change what is in force.
// Calls that failed, or only looked, are left out.
func (f *Filter) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// AddCRIULock gives a namespace a network lock of CRIU's own.
func (f *Filter) AddCRIULock(ns *netns.Namespace, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.use(ns)
	s.locks = append(s.locks, name)
}

// call runs do under the lock as a call of a method, unless it is to fail.
func (f *Filter) call(method string, do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fail := f.fails[method]; fail != nil {
		if fail.left > 0 {
			if fail.left--; fail.left == 0 {
				delete(f.fails, method)
			}
		}
		return fail.err
	}
	if err := do(); err != nil {
		return err
	}
	if methods[method] {
		f.calls = append(f.calls, method)
	}
	return nil
}

// use returns the space of a namespace and creates it if necessary.
func (f *Filter) use(ns *netns.Namespace) *space {
	s := f.spaces[ns.ID()]
	if s == nil {
		s = &space{whole: map[backend.Kind]*whole{}, conns: map[connsKey]*conns{}}
		f.spaces[ns.ID()] = s
	}
	return s
}

// look returns the space of a namespace, or an empty one if it was never used.
func (f *Filter) look(ns *netns.Namespace) *space {
	if s := f.spaces[ns.ID()]; s != nil {
		return s
	}
	return &space{}
}

// Open implements [rules.Filter]. Auto means nftables here, and IPTables its nft variant.
func (f *Filter) Open(ns *netns.Isolated, k backend.Kind) (rules.Freezer, error) {
	var opened *freezer
	err := f.call("Open", func() error {
		kind, err := resolve(k)
		if err != nil {
			return fmt.Errorf("freeze %s: %w", ns, err)
		}
		opened = &freezer{filter: f, space: f.use(ns.Namespace), kind: kind}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// OpenConns implements [rules.Filter].
func (f *Filter) OpenConns(ns *netns.Namespace, k backend.Kind, owner string) (rules.ConnFreezer, error) {
	var opened *connFreezer
	err := f.call("OpenConns", func() error {
		kind, err := resolve(k)
		if err = cmp.Or(rules.CheckOwner(owner), err); err != nil {
			return fmt.Errorf("freeze connections in %s: %w", ns, err)
		}
		opened = &connFreezer{filter: f, space: f.use(ns), key: connsKey{kind, owner}}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// resolve returns the back end that k stands for.
func resolve(k backend.Kind) (backend.Kind, error) {
	switch k {
	case backend.Auto:
		return backend.NFTables, nil
	case backend.IPTables:
		return backend.IPTablesNFT, nil
	}
	return backend.Parse(string(k))
}

// Look implements [rules.Filter].
func (f *Filter) Look(ns *netns.Namespace) (found rules.State, err error) {
	err = f.call("Look", func() error {
		for _, k := range kinds {
			if st := f.state(f.look(ns), k); found.Backend == "" || st.Frozen && !found.Frozen {
				found = st
			}
		}
		return nil
	})
	return found, err
}

// Survey implements [rules.Filter]. It fails where Look or CRIULocks fails.
func (f *Filter) Survey(ns *netns.Namespace) (rules.State, []string, error) {
	locks, _ := f.CRIULocks(ns)
	st, err := f.Look(ns)
	return st, locks, err
}

// ThawAll implements [rules.Filter].
func (f *Filter) ThawAll(ns *netns.Isolated) error {
	return f.call("ThawAll", func() error {
		clear(f.look(ns.Namespace).whole)
		return nil
	})
}

// CRIULocks implements [rules.Filter].
func (f *Filter) CRIULocks(ns *netns.Namespace) (locks []string, err error) {
	err = f.call("CRIULocks", func() error {
		locks = slices.Clone(f.look(ns).locks)
		return nil
	})
	return locks, err
}

// RemoveCRIULocks implements [rules.Filter].
func (f *Filter) RemoveCRIULocks(ns *netns.Isolated, keep []string) error {
	return f.call("RemoveCRIULocks", func() error {
		s := f.look(ns.Namespace)
		s.locks = slices.DeleteFunc(s.locks, func(name string) bool { return !slices.Contains(keep, name) })
		return nil
	})
}

// left returns the time left until a freeze ends, 0 if it has.
func (f *Filter) left(until time.Time) time.Duration { return max(until.Sub(f.now), 0) }

// state returns what one back end's rules do to the whole of a namespace.
func (f *Filter) state(s *space, k backend.Kind) rules.State {
	w := s.whole[k]
	if w == nil {
		return rules.State{}
	}
	left := f.left(w.frozen)
	return rules.State{Backend: k, Frozen: left > 0, Left: left, SYNHeld: left == 0 && f.left(w.syn) > 0}
}

// frozen returns the connections that an owner's rules drop, and the time left.
func (f *Filter) frozen(s *space, key connsKey) ([]tcp.Tuple, time.Duration) {
	c := s.conns[key]
	if c == nil || f.left(c.until) == 0 || len(c.tuples) == 0 {
		return nil, 0
	}
	return slices.Clone(c.tuples), f.left(c.until)
}
