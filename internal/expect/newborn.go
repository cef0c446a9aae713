// SPDX-License-Identifier: Apache-2.0

// Package expect freezes network namespaces while they are being set up, for a
// restore that comes later: until CRIU has rebuilt the sockets, the kernel
// would answer every peer with RST. An expectation announces such a restore. The
// CNI plugin and the OCI hook share this; both run for every container of the node,
// so nothing is linked here that is not needed to find out that a container is none
// of our business.
package expect

import (
	"fmt"
	"path"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// Reason says why a newcomer is to be frozen.
type Reason struct {
	Expected *Expectation // nil if a pattern chose it
	Pattern  string
}

// String says it in words.
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
			return code.New(code.Usage, fmt.Sprintf("%q is not a pattern of pods: give NAMESPACE/NAME, such as shop/db-*", p))
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

// Newborn freezes the namespace of a newcomer as netfreeze.toml says for it. The
// record of the freeze gets what r has: ID and, for CNI, Network. by names the
// program that freezes.
func Newborn(ns *netns.Namespace, n Newcomer, why *Reason, by string, r record.Record) (*record.Record, error) {
	cfg, err := config.Load(config.Path)
	if err != nil {
		return nil, err
	}
	set, err := cfg.For(identity.Container{ID: n.ID, Pod: n.Pod})
	if err != nil {
		return nil, err
	}
	r.Container = identity.Container{ID: n.ID, Pod: n.Pod}
	r.Note = fmt.Sprintf("frozen at its birth by %s: %s", by, why)
	if why.Expected != nil {
		r.Restores = why.Expected.Containers
	}
	done, err := freeze.New(rules.Kernel{}).Manual(ns, r, freeze.Options{Backend: set.Backend, TTL: set.TTL})
	if err != nil {
		return nil, err
	}
	if why.Expected != nil {
		err = why.Expected.Match(fmt.Sprintf("%s, %s", by, ns.ID()))
	}
	return done, err
}
