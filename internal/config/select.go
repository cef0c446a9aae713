package config

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// Container is what is known of the container that is dumped or restored. Any
// field may be empty; an empty field is matched by no pattern.
type Container struct {
	// ID is the runtime's full container id.
	ID string
	// Name is the container's name, as its engine knows it.
	Name string
	// PodNamespace and PodName name the Kubernetes pod.
	PodNamespace string
	PodName      string
	// Annotations are the OCI annotations of the container and its pod.
	Annotations map[string]string
}

// Settings are what holds for one container.
type Settings struct {
	Backend        string
	Policy         Policy
	TTL            time.Duration
	Drain          time.Duration
	RestoreFailure RestoreFailure

	Resuming
	// Why says what chose the policy, for logs and for the status.
	Why string
}

// For returns what holds for a container: the file's general settings, then
// the first rule that matches, then the annotation where it is allowed. It
// fails only on an annotation with a value that is no policy.
func (c *Config) For(t Container) (Settings, error) {
	s := Settings{
		Backend:        c.Backend,
		Policy:         c.Policy,
		TTL:            c.TTL,
		Drain:          c.Drain,
		RestoreFailure: c.RestoreFailure,

		Resuming: c.Resuming,
		Why:      c.name,
	}
	for i := range c.Containers {
		r := &c.Containers[i]
		if !r.matches(t) {
			continue
		}
		if r.Policy != "" {
			s.Policy = r.Policy
			s.Why = fmt.Sprintf("%s:%d: container rule %d (%s)", c.name, r.Line, i+1, r.patterns())
		}
		if r.Backend != "" {
			s.Backend = r.Backend
		}
		if r.TTL != nil {
			s.TTL = *r.TTL
		}
		if r.Drain != nil {
			s.Drain = *r.Drain
		}
		break
	}
	value, annotated := t.Annotations[PolicyAnnotation]
	switch {
	case annotated && c.Annotations:
		p, err := ParsePolicy(value)
		if err != nil {
			return Settings{}, fmt.Errorf("annotation %s of container %s: %w", PolicyAnnotation, t.ID, err)
		}
		s.Policy, s.Why = p, "annotation "+PolicyAnnotation
	case annotated:
		s.Why += "; annotation " + PolicyAnnotation + " ignored, annotations = false"
	}
	return s, nil
}

// matches reports whether every pattern of the rule matches the container.
func (r *Rule) matches(t Container) bool {
	if r.ID != "" && !glob(r.ID, t.ID) && !(isHex(r.ID) && strings.HasPrefix(t.ID, r.ID)) {
		return false
	}
	if r.Name != "" && !glob(r.Name, t.Name) {
		return false
	}
	if r.Pod != "" && (t.PodName == "" || !glob(r.Pod, t.PodNamespace+"/"+t.PodName)) {
		return false
	}
	return r.ID != "" || r.Name != "" || r.Pod != ""
}

// patterns prints the rule's patterns the way the file has them.
func (r *Rule) patterns() string {
	var parts []string
	for _, p := range []struct{ key, pattern string }{{"id", r.ID}, {"name", r.Name}, {"pod", r.Pod}} {
		if p.pattern != "" {
			parts = append(parts, fmt.Sprintf("%s = %q", p.key, p.pattern))
		}
	}
	return strings.Join(parts, ", ")
}

// glob matches as path.Match does; Parse has checked the pattern.
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
