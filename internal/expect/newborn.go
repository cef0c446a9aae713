// Package expect freezes network namespaces while they are being set up, for a
// restore that comes later: until CRIU has rebuilt the sockets, the kernel
// would answer every peer with RST. It is what the CNI plugin and the OCI hook
// share. Both run for every container of the node, so nothing is linked here
// that is not needed to find out that a container is none of our business.
package expect

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// Reason says why a newcomer is to be frozen.
type Reason struct {
	Expected *Expectation // nil if a pattern chose it
	Pattern  string
}

// String is for people.
func (r *Reason) String() string {
	if r.Expected != nil {
		return fmt.Sprintf("%s is expected", r.Expected)
	}
	return fmt.Sprintf("the pod matches %q", r.Pattern)
}

// CheckPatterns refuses what can match no pod: a pattern is NAMESPACE/NAME, with
// the wildcards of path.Match in either part.
func CheckPatterns(patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(p, "x"); err != nil || strings.Count(p, "/") != 1 ||
			strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") {
			return fmt.Errorf("%q is not a pattern of pods: give NAMESPACE/NAME, such as shop/db-*", p)
		}
	}
	return nil
}

// Expected returns why n is to be frozen, or nil if it is not: an expectation
// fits, or one of the patterns, which CheckPatterns has accepted, matches its
// pod. The error is about expectations that cannot be read. It is for the log,
// since it must not keep the other containers of the node from starting.
func Expected(n Newcomer, patterns []string) (*Reason, error) {
	all, err := Expectations()
	for i := range all {
		if all[i].Fits(n) {
			return &Reason{Expected: &all[i]}, err
		}
	}
	for _, p := range patterns {
		if ok, _ := path.Match(p, n.Pod); ok {
			return &Reason{Pattern: p}, err
		}
	}
	return nil, err
}

// Newborn freezes the namespace of a newcomer as netfreeze.toml says for it,
// with the record r, in which what the freeze is for is filled in. by names the
// program that does it.
func Newborn(ns *netns.Namespace, n Newcomer, why *Reason, by string, r record.Record) (*record.Record, error) {
	cfg, err := config.Load(config.Path)
	if err != nil {
		return nil, err
	}
	namespace, name, _ := strings.Cut(n.Pod, "/")
	set, err := cfg.For(config.Container{ID: n.Container, PodNamespace: namespace, PodName: name})
	if err != nil {
		return nil, err
	}
	r.Container, r.Pod = n.Container, n.Pod
	r.Note = fmt.Sprintf("frozen at its birth by %s: %s", by, why)
	done, err := Freeze(ns, set.Backend, set.TTL, r)
	if err != nil {
		return nil, err
	}
	if why.Expected != nil {
		err = why.Expected.Match(fmt.Sprintf("%s, %s", by, ns.ID()))
	}
	return done, err
}

// Freeze freezes a namespace for ttl at most, by a back end of package rules,
// and keeps the record r of it, which names what the freeze is for: ID,
// Container, Pod and Note are the caller's. Done twice, it renews the time to
// live; it never shortens another freeze's. A restore into the namespace adopts the freeze. Nothing is left behind
// by an error.
func Freeze(ns *netns.Namespace, backend string, ttl time.Duration, r record.Record) (*record.Record, error) {
	isolated, err := ns.Isolate()
	if err != nil {
		return nil, err
	}
	if err := record.MakeDir(); err != nil {
		return nil, err
	}
	unlock, err := record.LockNetNS(ns)
	if err != nil {
		return nil, err
	}
	defer unlock()
	f, err := rules.Open(isolated, rules.Kind(backend))
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // the rules stay
	// A freeze that is there, for somebody else, does not end sooner for this.
	before, err := rules.Look(ns)
	if err != nil {
		return nil, err
	}
	ttl = max(ttl, before.Left)
	if r.Cookie, err = ns.Cookie(); err != nil {
		return nil, err
	}
	now := time.Now()
	r.Op, r.Phase, r.Scope = record.Manual, record.Frozen, record.NetNS
	r.NetNS, r.Path, r.Backend = ns.ID(), netns.Mounted(ns.ID()), string(f.Backend())
	r.Since, r.Until = now, now.Add(ttl)
	if err := r.Save(); err != nil {
		return nil, err
	}
	if err := f.Freeze(ttl); err != nil {
		return nil, errors.Join(err, r.Remove())
	}
	return &r, nil
}
