// SPDX-License-Identifier: Apache-2.0

package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
)

func TestFor(t *testing.T) {
	const file = `
ttl = "5m"
annotations = true
[[container]]
id = "ab12"
policy = "kill"
[[container]]
pod = "kube-*/*"
name = "db"
policy = "isolate"
ttl = "1h"
[[container]]
name = "web-?"
backend = "iptables"
drain = "0s"
quiet = "off"
quiet-time = "1ms"
answer = "always"
[[container]]
id = "*"
name = "db"
policy = "run"
`
	c, err := Parse([]byte(file), "f")
	if err != nil {
		t.Fatal(err)
	}
	general := Settings{Backend: "auto", Policy: Hold, TTL: 5 * time.Minute, Drain: 100 * time.Millisecond, RestoreFailure: Thaw, Quieting: Default().Quieting, Resuming: Default().Resuming, Holding: Default().Holding, Why: "f"}
	with := func(change func(*Settings)) Settings {
		s := general
		change(&s)
		return s
	}
	const (
		rule1 = `f:4: container rule 1 (id = "ab12")`
		rule2 = `f:7: container rule 2 (name = "db", pod = "kube-*/*")`
		rule4 = `f:19: container rule 4 (id = "*", name = "db")`
	)
	tests := []struct {
		name string
		in   identity.Container
		want Settings
	}{
		{"unknown container", identity.Container{}, general},
		{"no rule", identity.Container{ID: "ffff", Name: "x"}, general},
		{"id prefix", identity.Container{ID: "ab12cd", Name: "db"}, with(func(s *Settings) {
			s.Policy, s.Why, s.Rule = Kill, rule1, rule1
		})},
		{"id not a prefix", identity.Container{ID: "ab1", Name: "x"}, general},
		{"pod and name", identity.Container{ID: "cc", Name: "db", Pod: "kube-system/p"}, with(func(s *Settings) {
			s.Policy, s.TTL, s.Why, s.Rule = Isolate, time.Hour, rule2, rule2
		})},
		{"pod, other name", identity.Container{ID: "cc", Name: "cache", Pod: "kube-system/p"}, general},
		{"no pod, later rule", identity.Container{ID: "cc", Name: "db"}, with(func(s *Settings) {
			s.Policy, s.Why, s.Rule = Run, rule4, rule4
		})},
		{"rule without policy", identity.Container{ID: "cc", Name: "web-1"}, with(func(s *Settings) {
			s.Answer = AnswerAlways
			s.Backend, s.Drain, s.Quieting, s.Rule = "iptables", 0, Quieting{NoQuiet, time.Millisecond}, `f:12: container rule 3 (name = "web-?")`
		})},
		{"annotation", identity.Container{ID: "ab12cd", Annotations: map[string]string{PolicyAnnotation: "run"}}, with(func(s *Settings) {
			s.Policy, s.Why, s.Rule = Run, "annotation io.criu.netfreeze.policy", rule1
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := c.For(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestForAnnotation(t *testing.T) {
	bad := identity.Container{ID: "ab", Annotations: map[string]string{PolicyAnnotation: "Kill"}}
	c := Default()
	got, err := c.For(bad)
	if err != nil {
		t.Fatal(err)
	}
	if want := "built-in defaults; annotation io.criu.netfreeze.policy ignored, annotations = false"; got.Policy != Hold || got.Why != want {
		t.Errorf("not allowed: got %q, %q", got.Policy, got.Why)
	}
	c.Annotations = true
	const want = `annotation io.criu.netfreeze.policy of container ab: policy = "Kill": not one of "hold", "run", "isolate", "kill" (did you mean "kill"?) [NF102]`
	if _, err := c.For(bad); err == nil || err.Error() != want {
		t.Errorf("allowed: got %v, want %s", err, want)
	}
}
