// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
)

// Settings are what applies to one container.
type Settings struct {
	Backend        backend.Kind
	Policy         Policy
	TTL            time.Duration
	Drain          time.Duration
	RestoreFailure RestoreFailure

	Quieting
	Resuming
	Holding
	// Why says what chose the policy, for the log and for netfreeze status.
	Why string
	// Rule is the rule of the file that matches the container, "" if none does.
	Rule string
}

// For returns the settings that apply to a container: the file's general settings,
// overridden by the first rule that matches, and then by the annotation if it is
// allowed to. The only error is an annotation whose value is not a policy.
func (c *Config) For(t identity.Container) (Settings, error) {
	s := Settings{
		Backend:        c.Backend,
		Policy:         c.Policy,
		TTL:            c.TTL,
		Drain:          c.Drain,
		RestoreFailure: c.RestoreFailure,

		Quieting: c.Quieting,
		Resuming: c.Resuming,
		Holding:  c.Holding,
		Why:      c.name,
	}
	for i := range c.Containers {
		r := &c.Containers[i]
		if !r.matches(t) {
			continue
		}
		s.Rule = fmt.Sprintf("%s:%d: container rule %d (%s)", c.name, r.Line, i+1, r.patterns())
		if r.Policy != "" {
			s.Policy, s.Why = r.Policy, s.Rule
		}
		if r.Backend != "" {
			s.Backend = r.Backend
		}
		if r.Answer != "" {
			s.Answer = r.Answer
		}
		if r.TTL != nil {
			s.TTL = *r.TTL
		}
		if r.Drain != nil {
			s.Drain = *r.Drain
		}
		if r.Quiet != "" {
			s.Quiet = r.Quiet
		}
		if r.QuietTime != nil {
			s.QuietTime = *r.QuietTime
		}
		break
	}
	value, annotated := t.Annotations[PolicyAnnotation]
	switch {
	case annotated && c.Annotations:
		p, err := ParsePolicy(value)
		if err != nil {
			return Settings{}, code.Wrap(code.Config, fmt.Errorf("annotation %s of container %s: %w", PolicyAnnotation, t.ID, err))
		}
		s.Policy, s.Why = p, "annotation "+PolicyAnnotation
	case annotated:
		s.Why += "; annotation " + PolicyAnnotation + " ignored, annotations = false"
	}
	return s, nil
}

// matches reports whether every pattern of the rule matches the container.
func (r *Rule) matches(t identity.Container) bool {
	if r.ID != "" && !glob(r.ID, t.ID) && !(isHex(r.ID) && strings.HasPrefix(t.ID, r.ID)) {
		return false
	}
	if r.Name != "" && !glob(r.Name, t.Name) {
		return false
	}
	if r.Pod != "" && !glob(r.Pod, t.Pod) {
		return false
	}
	return r.ID != "" || r.Name != "" || r.Pod != ""
}

// patterns prints the rule's patterns as they stand in the file.
func (r *Rule) patterns() string {
	var parts []string
	for _, p := range []struct{ key, pattern string }{{"id", r.ID}, {"name", r.Name}, {"pod", r.Pod}} {
		if p.pattern != "" {
			parts = append(parts, fmt.Sprintf("%s = %q", p.key, p.pattern))
		}
	}
	return strings.Join(parts, ", ")
}

// glob matches as path.Match does, but never the empty string. Parse has checked
// the pattern.
func glob(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return err == nil && ok && s != ""
}

// isHex reports whether s can be the beginning of a container id.
func isHex(s string) bool {
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return s != ""
}
